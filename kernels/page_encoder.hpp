// The encoder of a page, in lanes of the target that includes it (lanes.hpp), tile by tile.
//
// K and V share it, because a line has 16 rows in its lanes and runs in depth (page_layout.hpp): a
// group either runs along the depth (K per token, V per channel), then a lane has its own scale; or
// across the rows (V per token, K per channel), then a depth position has. The checksum is summed
// while a line is still in registers.
#pragma once

#include "kernels/encode_tile.hpp"

namespace modalkv {
namespace {

class PageEncoder {
 public:
  explicit PageEncoder(const EncodeRequest& request)
      : request_(request),
        shape_(request.shape),
        layout_(request.shape),
        page_(request.page.data()),
        used_(static_cast<Tokens>(request.trailer.tokens)),
        dims_(request.shape.head_dim),
        tile_(dims_, used_) {}

  bool run() {
    if (used_ <= shape_.tokens - kTileTokens) clear_unused_tiles();
    if (!encode_side(false) || !encode_side(true)) return false;
    write_trailer();
    const Bytes metadata = layout_.key_metadata(0), trailer = layout_.trailer();
    sums_.add(page_ + metadata, metadata, trailer - metadata);
    const Bytes sum_at = trailer + kTrailerChecksum;
    std::uint64_t sum = sums_.total() + checksum_mix(static_cast<std::uint64_t>(sum_at));
    for (Bytes at = trailer; at < sum_at; at += 8) {
      std::uint64_t word = 0;
      std::memcpy(&word, page_ + at, sizeof(word));
      sum += checksum_mix(word + (static_cast<std::uint64_t>(at / 8) + 1) * kChecksumStep);
    }
    std::memcpy(page_ + sum_at, &sum, sizeof(sum));
    return true;
  }

 private:
  using WriteTile = void (PageEncoder::*)(int head, Tokens begin, int group);

  // K or V.
  struct Side {
    ElementFormat format;
    int group;
    const Rows& rows;
    const KeyBias* bias;
    int rotation;
    LaneQuantizer quantizer;
    WriteTile write, write_limited;
  };

  bool encode_side(bool in_values) {
    const ElementFormat& format = in_values ? shape_.format.value : shape_.format.key;
    const bool as_is = in_values || quantization(format) == Quantization::none;
    const Side side{
        .format = format,
        .group = static_cast<int>(group_elements(format, shape_)),
        .rows = in_values ? request_.values : request_.keys,
        .bias = as_is ? nullptr : request_.known.bias,
        .rotation = as_is ? 0 : shape_.format.key_rotation,
        .quantizer = {format, in_values ? request_.scales.value : request_.scales.key},
        .write = writer_of<false>(format, in_values),
        .write_limited = writer_of<true>(format, in_values),
    };
    const bool bf16 = side.rows.number == NumberFormat::bf16;
    if (in_values)
      return bf16 ? encode_from<Bf16Input, true>(side) : encode_from<Fp16Input, true>(side);
    return bf16 ? encode_from<Bf16Input, false>(side) : encode_from<Fp16Input, false>(side);
  }

  template <typename Input, bool in_values>
  bool encode_from(const Side& side) {
    return side.format.per_channel ? encode_channels<Input, in_values>(side)
                                   : encode_tokens<Input, in_values>(side);
  }

  // Calls `use` with the vectors of a tile, as they are quantized.
  template <typename Input, bool in_values, typename Use>
  auto with_vectors(const Side& side, int head, Tokens begin, Use use) {
    const Tile::Plain plain = tile_.plain(side.rows, head, begin);
    if constexpr (!in_values)
      if (side.bias != nullptr || side.rotation > 0)
        return use(tile_.changed<Input>(plain, side.bias, head, side.rotation));
    return use(plain);
  }

  // Groups within the vector of a token. Heads are the inner loop, as they lie side by side.
  template <typename Input, bool in_values>
  bool encode_tokens(const Side& side) {
    for (int i = 0; i < kTilesAhead && !in_values; ++i) {
      fetch_by_tokens<in_values>(side, 0, 0, i);
      tile_.fetcher.fetch(kMostTileElements);
    }
    for (Tokens begin = 0; begin < used_; begin += kTileTokens) {
      if (side.bias != nullptr) tile_.turn_bias(request_.known, begin);
      for (int head = 0; head < shape_.kv_heads; ++head) {
        fetch_by_tokens<in_values>(side, head, begin, kTilesAhead);
        fetch_lines<in_values>(side.format, head, begin);
        const auto fit = [&](const auto& vectors) {
          return fit_tokens<Input, in_values>(side, vectors, head, begin);
        };
        if (!with_vectors<Input, in_values>(side, head, begin, fit)) return false;
        write<in_values>(side, head, begin);
      }
    }
    return true;
  }

  template <typename Input, bool in_values, typename Vectors>
  bool fit_tokens(const Side& side, const Vectors& vectors, int head, Tokens begin) {
    const Words* in_use = nullptr;
    Words masks[kParts];
    if (begin + kTileTokens > used_) {
      tokens_in_use(begin, masks);
      in_use = masks;
    }
    tile_.forget();
    limited_ = false;
    for (int dim = 0, index = 0; dim < dims_; dim += side.group, index += kTileTokens) {
      const int end = std::min(dim + side.group, dims_);
      if constexpr (in_values) {
        tile_.load_across<Input, true>(vectors, dim, end);
      } else {
        tile_.turn_along<Input, true>(vectors, dim, end);
      }
      if (!fit_groups<in_values>(side, head, begin, dim, kTileTokens, index, in_use)) return false;
    }
    return tile_.is_finite();
  }

  // Groups of the tokens of a channel: once for their ranges, once for their codes.
  template <typename Input, bool in_values>
  bool encode_channels(const Side& side) {
    for (Tokens begin = 0; begin < used_; begin += side.group) {
      const Tokens end = std::min<Tokens>(begin + side.group, used_);
      for (int head = 0; head < shape_.kv_heads; ++head) {
        tile_.forget();
        for (Tokens at = begin; at < end; at += kTileTokens) {
          fetch_by_channels<in_values>(side, head, begin, at, false);
          if (side.bias != nullptr) tile_.turn_bias(request_.known, at);
          const auto look = [&](const auto& vectors) {
            tile_.range_down<Input>(vectors, at == begin);
          };
          with_vectors<Input, in_values>(side, head, at, look);
        }
        limited_ = false;
        if (!tile_.is_finite() || !fit_groups<in_values>(side, head, begin, 0, dims_, 0, nullptr))
          return false;
        for (Tokens at = begin; at < end; at += kTileTokens) {
          fetch_by_channels<in_values>(side, head, begin, at, true);
          fetch_lines<in_values>(side.format, head, at);
          if (side.bias != nullptr) tile_.turn_bias(request_.known, at);
          const auto load = [&](const auto& vectors) {
            if constexpr (in_values) {
              tile_.load_across<Input, false>(vectors, 0, dims_);
            } else {
              tile_.turn_along<Input, false>(vectors, 0, dims_);
            }
          };
          with_vectors<Input, in_values>(side, head, at, load);
          write<in_values>(side, head, at);
        }
      }
    }
    return true;
  }

  // The groups whose ranges are in the tile: their metadata, and coefficients from `index` on.
  template <bool in_values>
  bool fit_groups(const Side& side, int head, Tokens token, int dim, int groups, int index,
                  const Words* in_use) {
    std::byte* metadata =
        page_ + (in_values ? layout_.value_metadata(head) : layout_.key_metadata(head));
    std::byte* scales = metadata + layout_.scale(side.format, token, dim);
    std::byte* zeros = metadata + layout_.zero(side.format, token, dim);
    Words unfit{}, limited{};
    for (int i = 0; i < groups; i += kWidth) {
      const FittedGroups fitted =
          side.quantizer.fit(load<Floats>(tile_.least + i), load<Floats>(tile_.most + i));
      unfit |= fitted.unfit;
      limited |= fitted.limited;
      store(subtracted_ + index + i, fitted.subtracted);
      store(inverse_ + index + i, fitted.inverse);
      store(added_ + index + i, fitted.added);
      const Words mask = in_use != nullptr ? in_use[i / kWidth] : broadcast(~0u);
      store_low(scales + i * side.format.scale_bytes, fitted.scale & mask, side.format.scale_bytes);
      store_low(zeros + i * side.format.zero_bytes, fitted.zero & mask, side.format.zero_bytes);
    }
    limited_ = limited_ || any(limited);
    return !any(unfit);
  }

  // The tile `tiles` from here on, heads first. Behind the last key come the values.
  template <bool in_values>
  void fetch_by_tokens(const Side& side, int head, Tokens begin, int tiles) {
    const int next = (head + tiles) % shape_.kv_heads;
    const Tokens token = begin + (head + tiles) / shape_.kv_heads * kTileTokens;
    if (token < used_) {
      tile_.fetcher.look_ahead(side.rows, next, token,
                               std::min<Tokens>(kTileTokens, used_ - token));
    } else if (!in_values) {
      tile_.fetcher.look_ahead(request_.values, next, 0, std::min<Tokens>(kTileTokens, used_));
    }
  }

  // Half of the tile of the next head while this one's range is found, half while it is written.
  // The first head of all comes without notice: it is fetched a tile ahead.
  template <bool in_values>
  void fetch_by_channels(const Side& side, int head, Tokens begin, Tokens at, bool writing) {
    constexpr Tokens kHalf = kTileTokens / 2;
    const bool first = !in_values && head == 0 && begin == 0;
    const bool last_head = head + 1 == shape_.kv_heads;
    const bool last = last_head && begin + side.group >= used_;
    Tokens token = at, count = first ? kTileTokens : kHalf;
    const Rows& rows = last && !in_values ? request_.values : side.rows;
    if (first && !writing) {
      tile_.fetcher.look_ahead(side.rows, head, at + kTileTokens,
                               std::clamp<Tokens>(used_ - at - kTileTokens, 0, kTileTokens));
      return;
    }
    if (last) token -= begin;
    if (last_head && !last) token += side.group;
    if (writing && !first) token += kHalf;
    if (last && in_values) count = 0;
    tile_.fetcher.look_ahead(rows, last_head ? 0 : head + 1, token,
                             std::clamp<Tokens>(used_ - token, 0, count));
  }

  // The lines that a tile will be written to: a store that waits for its line holds up all behind.
  template <bool in_values>
  [[gnu::always_inline]] void fetch_lines(const ElementFormat& format, int head, Tokens begin) {
    const int deep = word_elements(format);
    const int runs = in_values ? dims_ / kLineRows : 1;
    const Bytes run = (in_values ? kTileTokens : dims_) / deep * kLineBytes;
    const Bytes apart = shape_.tokens / deep * kLineBytes;
    const std::byte* to = page_ +
                          (in_values ? layout_.value_lines(head) : layout_.key_lines(head)) +
                          begin / kTileTokens * run;
    for (int i = 0; i < runs; ++i)
      for (Bytes at = 0; at < run; at += kLineBytes) __builtin_prefetch(to + i * apart + at, 1);
  }

  template <bool in_values>
  void write(const Side& side, int head, Tokens begin) {
    (this->*(limited_ ? side.write_limited : side.write))(head, begin, side.group);
  }

  template <bool limited>
  static WriteTile writer_of(const ElementFormat& format, bool in_values) {
    const bool per_channel = format.per_channel;
    switch (format.number) {
      case NumberFormat::fp16:
        return writer<Fp16Coder>(per_channel, in_values);
      case NumberFormat::bf16:
        return writer<Bf16Coder>(per_channel, in_values);
      case NumberFormat::fp8_e4m3:
        return writer<E4m3Coder>(per_channel, in_values);
      case NumberFormat::nvfp4:
      case NumberFormat::mxfp4:
        return writer<E2m1Coder>(per_channel, in_values);
      case NumberFormat::int8:
        return integer_writer<8, limited>(format, in_values);
      case NumberFormat::int4:
        return integer_writer<4, limited>(format, in_values);
      case NumberFormat::int2:
        return integer_writer<2, limited>(format, in_values);
    }
    return nullptr;
  }

  template <int bits, bool limited>
  static WriteTile integer_writer(const ElementFormat& format, bool in_values) {
    switch (quantization(format)) {
      case Quantization::affine:
        return writer<IntegerCoder<bits, Quantization::affine, limited>>(format.per_channel,
                                                                         in_values);
      case Quantization::affine_integer:
        return writer<IntegerCoder<bits, Quantization::affine_integer, limited>>(format.per_channel,
                                                                                 in_values);
      default:
        return writer<IntegerCoder<bits, Quantization::symmetric, limited>>(format.per_channel,
                                                                            in_values);
    }
  }

  template <typename Coder>
  static WriteTile writer(bool per_channel, bool in_values) {
    if (per_channel)
      return in_values ? &PageEncoder::write_tile<Coder, true, true>
                       : &PageEncoder::write_tile<Coder, true, false>;
    return in_values ? &PageEncoder::write_tile<Coder, false, true>
                     : &PageEncoder::write_tile<Coder, false, false>;
  }

  // The lines of a tile: elements to codes, codes to words, words to the page and its checksum.
  template <typename Coder, bool per_channel, bool in_values>
  void write_tile(int head, Tokens begin, int group) {
    constexpr int bits = Coder::kBits, deep = 32 / bits;
    const int rows = in_values ? dims_ : kTileTokens;
    const int lines = (in_values ? kTileTokens : dims_) / deep;
    const float* from = in_values ? tile_.straight() : tile_.turned();
    Words tokens[kParts];
    tokens_in_use(begin, tokens);
    const Bytes run = in_values ? shape_.tokens / deep * kLineBytes : 0;
    const Bytes first = (in_values ? layout_.value_lines(head) : layout_.key_lines(head)) +
                        begin / kTileTokens * lines * kLineBytes;
    for (int row = 0; row < rows; row += kLineRows) {
      const int row_group = in_values && !per_channel ? row / group * kTileTokens : row;
      for (int line = 0; line < lines; ++line) {
        const int depth = line * deep;
        // Of the group at this row and depth; where groups run across rows, of this depth first.
        const int index = in_values ? (per_channel ? row : row_group + depth)
                                    : (per_channel ? depth : depth / group * kTileTokens);
        const Bytes at = first + row / kLineRows * run + line * kLineBytes;
        for (int part = 0; part < kParts; ++part) {
          const Words used = in_values ? depth_in_use<bits>(begin + depth) : tokens[part];
          const Words word = used & word_of<Coder, in_values == per_channel>(
                                        from + depth * rows + row + part * kWidth, rows,
                                        index + (in_values == per_channel ? part * kWidth : 0));
          store(page_ + at + part * 4 * kWidth, word);
          sums_.add(word, at + part * 4 * kWidth);
        }
      }
    }
  }

  // `along_depth`: the lanes have coefficients each, from `index` on; else the depth positions do.
  template <typename Coder, bool along_depth>
  [[gnu::always_inline]] Words word_of(const float* from, int stride, int index) const {
    constexpr int bits = Coder::kBits, deep = 32 / bits;
    constexpr std::uint32_t excess = [] {
      std::uint32_t sum = 0;
      for (int i = 0; i < deep; ++i) sum += Coder::kExcess << bit_of_element(bits, i);
      return sum;
    }();
    Words word = broadcast(0u - excess);
#pragma GCC unroll 16
    for (int i = 0; i < deep; ++i)
      word += Coder::code(load<Floats>(from + i * stride),
                          coefficient<along_depth>(subtracted_ + index, i),
                          coefficient<along_depth>(inverse_ + index, i),
                          coefficient<along_depth>(added_ + index, i))
              << bit_of_element(bits, i);
    return word;
  }

  template <bool along_depth>
  [[gnu::always_inline]] static Floats coefficient(const float* all, int i) {
    return along_depth ? load<Floats>(all) : broadcast(all[i]);
  }

  static constexpr int bit_of_element(int bits, int element) {
    return 16 * (element % 2) + bits * (element / 2);
  }

  // A lane a token: all bits where it is used.
  void tokens_in_use(Tokens begin, Words (&masks)[kParts]) const {
    std::uint32_t lanes[kTileTokens];
    for (int i = 0; i < kTileTokens; ++i) lanes[i] = begin + i < used_ ? ~0u : 0u;
    std::memcpy(masks, lanes, sizeof(masks));
  }

  // The bits of a word of V whose tokens, from `first` on, are used.
  template <int bits>
  [[gnu::always_inline]] Words depth_in_use(Tokens first) const {
    constexpr int deep = 32 / bits;
    if (first + deep <= used_) return broadcast(~0u);
    std::uint32_t mask = 0;
    for (int i = 0; i < deep && first + i < used_; ++i)
      mask |= ((1u << bits) - 1) << bit_of_element(bits, i);
    return broadcast(mask);
  }

  // Tiles without tokens are zeros, and so is their metadata.
  void clear_unused_tiles() {
    const Tokens tiles = shape_.tokens / kTileTokens, kept = divide_up(used_, kTileTokens);
    const auto clear = [&](Bytes at, Bytes run) {
      const Bytes begin = run * kept / tiles;
      std::memset(page_ + at + begin, 0, static_cast<std::size_t>(run - begin));
      sums_.add(page_ + at + begin, at + begin, run - begin);
    };
    const Bytes key_run = layout_.value_lines(0);
    const Bytes value_run = (layout_.key_lines(1) - key_run) / (dims_ / kLineRows);
    for (int head = 0; head < shape_.kv_heads; ++head) {
      clear(layout_.key_lines(head), key_run);
      for (int row = 0; row < dims_ / kLineRows; ++row)
        clear(layout_.value_lines(head) + row * value_run, value_run);
    }
    const Bytes metadata = layout_.key_metadata(0);
    std::memset(page_ + metadata, 0, static_cast<std::size_t>(layout_.trailer() - metadata));
  }

  void write_trailer() {
    const Bytes behind = layout_.key_metadata(shape_.kv_heads);
    std::memset(page_ + behind, 0,
                static_cast<std::size_t>(layout_.trailer() + kPageTrailerBytes - behind));
    std::byte* to = page_ + layout_.trailer();
    const PageTrailer& trailer = request_.trailer;
    store(to + kTrailerContentId, trailer.content.words);
    store(to + kTrailerGeneration, trailer.generation);
    store(to + kTrailerTokens, trailer.tokens);
  }

  static constexpr int kTilesAhead = 2;

  const EncodeRequest& request_;
  const PageShape& shape_;
  PageLayout layout_;
  std::byte* page_;
  Tokens used_;
  int dims_;
  bool limited_ = false;  // whether elements of the tile may lie beyond its codes
  Sums sums_;
  Tile tile_;
  // Of each group: a lane for each token of a group of channels, or one for each channel.
  alignas(64) float subtracted_[kMaxHeadDim], inverse_[kMaxHeadDim], added_[kMaxHeadDim];
};

// checksum() by lanes.
std::uint64_t lane_checksum(std::span<const std::byte> bytes) {
  const std::size_t whole = bytes.size() / sizeof(Words) * sizeof(Words);
  Sums sums;
  sums.add(bytes.data(), 0, static_cast<Bytes>(whole));
  std::uint64_t sum = sums.total() + checksum_mix(bytes.size());
  for (std::size_t at = whole; at < bytes.size(); at += 8) {
    std::uint64_t word = 0;
    std::memcpy(&word, bytes.data() + at, std::min<std::size_t>(8, bytes.size() - at));
    sum += checksum_mix(word + (at / 8 + 1) * kChecksumStep);
  }
  return sum;
}

template <typename Coder>
void round_vector(std::span<const float> from, std::uint16_t* to) {
  constexpr Floats unused{};
  for (std::size_t i = 0; i < from.size(); i += kWidth) {
    const Words codes = Coder::code(load<Floats>(from.data() + i), unused, unused, unused);
    store(to + i, __builtin_convertvector(codes, Halves));
  }
}

bool encode(const EncodeRequest& request) {
  return PageEncoder(request).run();
}

}  // namespace
}  // namespace modalkv
