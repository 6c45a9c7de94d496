// Pages back to rows: line by line into a tile of 16 tokens, in loops over rows that compilers make
// vectors of.
#include <algorithm>
#include <array>
#include <bit>
#include <cstring>

#include "kernels/encode_targets.hpp"
#include "kernels/key_transform.hpp"
#include "kernels/quantizer.hpp"

namespace modalkv {
namespace {

// K or V of 16 tokens of a head.
class TileDecoder {
 public:
  TileDecoder(const PageShape& shape, std::span<const std::byte> page, bool in_values,
              float tensor_scale)
      : layout_(shape),
        shape_(layout_.shape()),
        page_(page.data()),
        in_values_(in_values),
        format_(in_values ? shape.format.value : shape.format.key),
        tensor_scale_(tensor_scale),
        dims_(shape.head_dim) {
    const int bits = payload_bits(format_.number);
    if (bits == 16) return;
    const GroupCoder coder(format_, {});
    for (std::uint32_t code = 0; code < 1u << bits; ++code) levels_[code] = coder.value(code);
  }

  void decode(int head, Tokens begin) {
    load_levels(head, begin);
    if (quantization(format_) != Quantization::none) scale_levels(head, begin);
  }

  std::span<float> vector(Tokens token) {
    return std::span(tile_).subspan(static_cast<std::size_t>(token * dims_),
                                    static_cast<std::size_t>(dims_));
  }

 private:
  void load_levels(int head, Tokens begin) {
    const int deep = word_elements(format_);
    for (int line = 0; line < dims_ / deep; ++line) {
      // Lines of V: by 16 channels, then by the tokens of the tile.
      const int lines = kLineRows / deep;
      const int dim = in_values_ ? line / lines * kLineRows : line * deep;
      const int token = in_values_ ? line % lines * deep : 0;
      const ElementPlace place =
          in_values_ ? layout_.value(head, begin + token, dim) : layout_.key(head, begin, dim);
      std::array<std::uint32_t, kLineRows> words;
      std::memcpy(words.data(), page_ + place.word, kLineBytes);
      for (int element = 0; element < deep; ++element) {
        std::array<float, kLineRows> levels;
        to_levels(words, bit_of(format_, element), levels);
        if (in_values_) {
          std::copy(levels.begin(), levels.end(), tile_.begin() + (token + element) * dims_ + dim);
        } else {
          for (int row = 0; row < kLineRows; ++row)
            tile_[static_cast<std::size_t>(row * dims_ + dim + element)] =
                levels[static_cast<std::size_t>(row)];
        }
      }
    }
  }

  void to_levels(const std::array<std::uint32_t, kLineRows>& words, int bit,
                 std::array<float, kLineRows>& levels) const {
    const std::uint32_t mask = (std::uint32_t{1} << payload_bits(format_.number)) - 1;
    for (std::size_t row = 0; row < kLineRows; ++row) {
      const std::uint32_t code = words[row] >> bit & mask;
      switch (format_.number) {
        case NumberFormat::fp16:
          levels[row] = from_fp16(static_cast<std::uint16_t>(code));
          break;
        case NumberFormat::bf16:
          levels[row] = std::bit_cast<float>(code << 16);
          break;
        case NumberFormat::int8:
        case NumberFormat::int4:
        case NumberFormat::int2:
          levels[row] = static_cast<float>(static_cast<std::int32_t>(code));
          break;
        default:
          levels[row] = levels_[code];
      }
    }
  }

  void scale_levels(int head, Tokens begin) {
    const auto group = static_cast<int>(group_elements(format_, shape_));
    for (Tokens token = 0; token < kLineRows; ++token) {
      float* vector = tile_.data() + token * dims_;
      for (int dim = 0; dim < dims_;) {
        if (format_.per_channel) {
          if (token == 0) {
            const GroupScale scale = group_scale(head, begin, dim);
            scales_[static_cast<std::size_t>(dim)] = scale.scale;
            zeros_[static_cast<std::size_t>(dim)] = scale.zero;
          }
          ++dim;
          continue;
        }
        const GroupScale scale = group_scale(head, begin + token, dim);
        for (const int end = std::min(dim + group, dims_); dim < end; ++dim)
          vector[dim] = vector[dim] * scale.scale + scale.zero;
      }
      if (!format_.per_channel) continue;
      for (int dim = 0; dim < dims_; ++dim)
        vector[dim] = vector[dim] * scales_[static_cast<std::size_t>(dim)] +
                      zeros_[static_cast<std::size_t>(dim)];
    }
  }

  GroupScale group_scale(int head, Tokens token, int dim) const {
    const std::byte* metadata =
        page_ + (in_values_ ? layout_.value_metadata(head) : layout_.key_metadata(head));
    const auto stored = [&](Bytes at, int bytes) {
      std::uint16_t value = 0;
      std::memcpy(&value, metadata + at, static_cast<std::size_t>(bytes));
      return value;
    };
    return stored_scale(format_, stored(layout_.scale(format_, token, dim), format_.scale_bytes),
                        stored(layout_.zero(format_, token, dim), format_.zero_bytes),
                        tensor_scale_);
  }

  PageLayout layout_;
  const PageShape& shape_;
  const std::byte* page_;
  bool in_values_;
  ElementFormat format_;
  float tensor_scale_;
  int dims_;
  std::array<float, 256> levels_{};
  std::array<float, kMaxHeadDim> scales_, zeros_;
  std::array<float, kLineRows * kMaxHeadDim> tile_;
};

// Calls `use(token, head, vector)` for the vectors of one side.
template <typename Use>
void for_each_vector(const PageShape& shape, std::span<const std::byte> page, bool in_values,
                     float tensor_scale, const KnownBias& known, Use use) {
  const KeyTransform transform(shape, known);
  const Tokens used = std::min<Tokens>(read_trailer(page).tokens, shape.tokens);
  TileDecoder tile(shape, page, in_values, tensor_scale);
  for (Tokens begin = 0; begin < used; begin += kLineRows)
    for (int head = 0; head < shape.kv_heads; ++head) {
      tile.decode(head, begin);
      for (Tokens token = begin; token < std::min<Tokens>(begin + kLineRows, used); ++token) {
        const std::span<float> vector = tile.vector(token - begin);
        if (!in_values && transform.changes()) transform.undo(head, token, vector);
        use(token, head, vector);
      }
    }
}

void decode_side(const PageShape& shape, std::span<const std::byte> page, bool in_values,
                 float tensor_scale, const KnownBias& known, std::span<float> to) {
  for_each_vector(shape, page, in_values, tensor_scale, known,
                  [&](Tokens token, int head, std::span<const float> vector) {
                    const auto at = static_cast<std::ptrdiff_t>((token * shape.kv_heads + head) *
                                                                shape.head_dim);
                    std::copy(vector.begin(), vector.end(), to.begin() + at);
                  });
}

void decode_side(const PageShape& shape, std::span<const std::byte> page, bool in_values,
                 float tensor_scale, const KnownBias& known, const MutableRows& to) {
  const auto round = to.number == NumberFormat::bf16 ? encode_targets().front()->round_to_bf16
                                                     : encode_targets().front()->round_to_fp16;
  for_each_vector(shape, page, in_values, tensor_scale, known,
                  [&](Tokens token, int head, std::span<const float> vector) {
                    round(vector, to.elements + token * to.token_stride + head * to.head_stride);
                  });
}

}  // namespace

void decode_keys(const PageShape& shape, std::span<const std::byte> page,
                 const TensorScales& scales, std::span<float> to, const KnownBias& known) {
  decode_side(shape, page, false, scales.key, known, to);
}

void decode_values(const PageShape& shape, std::span<const std::byte> page,
                   const TensorScales& scales, std::span<float> to) {
  decode_side(shape, page, true, scales.value, {}, to);
}

void decode_keys(const PageShape& shape, std::span<const std::byte> page,
                 const TensorScales& scales, const MutableRows& to, const KnownBias& known) {
  decode_side(shape, page, false, scales.key, known, to);
}

void decode_values(const PageShape& shape, std::span<const std::byte> page,
                   const TensorScales& scales, const MutableRows& to) {
  decode_side(shape, page, true, scales.value, {}, to);
}

}  // namespace modalkv
