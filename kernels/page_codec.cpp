#include "kernels/page_codec.hpp"

#include <array>
#include <cmath>
#include <cstring>
#include <span>

#include "kernels/checksum.hpp"
#include "kernels/encode_targets.hpp"
#include "kernels/key_transform.hpp"
#include "kernels/quantizer.hpp"

namespace modalkv {
namespace {

template <typename T>
T load(std::span<const std::byte> page, Bytes at) {
  T value;
  std::memcpy(&value, page.data() + at, sizeof(value));
  return value;
}

// Calls `function(first_token, first_dim, tokens, dims)` for each group of the tokens in use, until
// it returns false.
template <typename Function>
bool for_each_group(const PageShape& shape, const ElementFormat& format, Tokens tokens,
                    Function function) {
  const std::int64_t group = group_elements(format, shape);
  const Tokens token_step = format.per_channel ? group : 1;
  const auto dim_step = static_cast<int>(format.per_channel ? 1 : group);
  for (Tokens token = 0; token < tokens; token += token_step)
    for (int dim = 0; dim < shape.head_dim; dim += dim_step)
      if (!function(token, dim, std::min(token_step, tokens - token),
                    std::min(dim_step, shape.head_dim - dim)))
        return false;
  return true;
}

float to_float(const Rows& rows, std::int64_t at) {
  return from_16bit(rows.elements[at], rows.number);
}

// The elements of one side of one head as they are quantized.
class Source {
 public:
  Source(const Rows& rows, int head, int dims, const KeyTransform* transform)
      : rows_(rows), head_(head), dims_(dims), transform_(transform) {}

  float operator()(Tokens token, int dim) {
    if (transform_ == nullptr) return to_float(rows_, index(token, dim));
    if (token != loaded_) {
      for (int d = 0; d < dims_; ++d)
        vector_[static_cast<std::size_t>(d)] = to_float(rows_, index(token, d));
      transform_->apply(head_, token, std::span(vector_).first(static_cast<std::size_t>(dims_)));
      loaded_ = token;
    }
    return vector_[static_cast<std::size_t>(dim)];
  }

 private:
  std::int64_t index(Tokens token, int dim) const {
    return token * rows_.token_stride + head_ * rows_.head_stride + dim;
  }

  const Rows& rows_;
  int head_, dims_;
  const KeyTransform* transform_;
  Tokens loaded_ = -1;
  std::array<float, kMaxHeadDim> vector_{};
};

// The first token to blame where a group cannot be encoded, or -1.
Tokens token_to_blame(const ElementFormat& format, Source& source, Tokens token, int dim,
                      Tokens tokens, int dims, float tensor_scale) {
  float least = INFINITY, most = -INFINITY;
  for (Tokens t = token; t < token + tokens; ++t)
    for (int d = dim; d < dim + dims; ++d) {
      const float value = source(t, d);
      if (!std::isfinite(value)) return t;
      if (format.number == NumberFormat::fp16 && std::isinf(from_fp16(to_fp16(value)))) return t;
      least = std::min(least, value);
      most = std::max(most, value);
    }
  return std::isfinite(fit_scale(format, least, most, tensor_scale).scale) ? -1 : token;
}

// Why a request failed: the encoders only see that it did.
EncodeResult blame(const EncodeRequest& request) {
  const PageShape& shape = request.shape;
  const KeyTransform transform(shape, request.known);
  for (int head = 0; head < shape.kv_heads; ++head)
    for (const bool in_values : {false, true}) {
      const ElementFormat& format = in_values ? shape.format.value : shape.format.key;
      Source source(in_values ? request.values : request.keys, head, shape.head_dim,
                    !in_values && transform.changes() ? &transform : nullptr);
      Tokens found = -1;
      for_each_group(shape, format, request.trailer.tokens,
                     [&](Tokens token, int dim, Tokens tokens, int dims) {
                       found =
                           token_to_blame(format, source, token, dim, tokens, dims,
                                          in_values ? request.scales.value : request.scales.key);
                       return found < 0;
                     });
      if (found >= 0) return {Status::rejected, in_values, head, found};
    }
  return {Status::rejected};
}

}  // namespace

EncodeResult encode_page(const EncodeTarget& target, const EncodeRequest& request) {
  return target.encode(request) ? EncodeResult{} : blame(request);
}

EncodeResult encode_page(const PageShape& shape, const Rows& keys, const Rows& values,
                         const PageTrailer& trailer, const TensorScales& scales,
                         std::span<std::byte> page, const KnownBias& known) {
  return encode_page(*encode_targets().front(),
                     {shape, keys, values, trailer, scales, known, page});
}

void write_trailer(const PageShape& shape, const PageTrailer& trailer, std::span<std::byte> page) {
  const Bytes at = PageLayout(shape).trailer();
  const auto store = [&](Bytes offset, const auto& value) {
    std::memcpy(page.data() + at + offset, &value, sizeof(value));
  };
  std::memset(page.data() + at, 0, kPageTrailerBytes);
  store(kTrailerContentId, trailer.content.words);
  store(kTrailerGeneration, trailer.generation);
  store(kTrailerTokens, trailer.tokens);
  store(kTrailerChecksum, checksum(page.first(static_cast<std::size_t>(at + kTrailerChecksum))));
}

PageTrailer read_trailer(std::span<const std::byte> page) {
  const Bytes at = static_cast<Bytes>(page.size()) - kPageTrailerBytes;
  return {{load<std::array<std::uint64_t, 4>>(page, at + kTrailerContentId)},
          load<std::uint64_t>(page, at + kTrailerGeneration),
          load<std::uint32_t>(page, at + kTrailerTokens)};
}

Status verify_page(std::span<const std::byte> page) {
  const Bytes at = static_cast<Bytes>(page.size()) - kPageTrailerBytes + kTrailerChecksum;
  return checksum(page.first(static_cast<std::size_t>(at))) == load<std::uint64_t>(page, at)
             ? Status::ok
             : Status::checksum;
}

}  // namespace modalkv
