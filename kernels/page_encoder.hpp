// The encoder of a page, in lanes of the target that includes it (lanes.hpp).
//
// It works tile by tile: 16 tokens of a head become a tile of floats in the first-level cache,
// where keys lose their bias, are rotated and turned. What follows is the same for K and V, because
// a line has 16 rows in its lanes and runs in depth (page_layout.hpp): a group either runs along
// the depth (K per token, V per channel), then a lane has its own scale; or across the rows (V per
// token, K per channel), then a depth position has. Unused lanes of the last tile hold copies of
// its last token, which changes no range, and are masked out of what is stored.
#include "kernels/lane_quantizer.hpp"

namespace modalkv {
namespace {

constexpr int kTileTokens = kLineRows;
constexpr int kMostTileElements = kTileTokens * kMaxHeadDim;

class PageEncoder {
 public:
  explicit PageEncoder(const EncodeRequest& request)
      : request_(request),
        shape_(request.shape),
        layout_(request.shape),
        page_(request.page.data()),
        used_(static_cast<Tokens>(request.trailer.tokens)),
        dims_(request.shape.head_dim) {}

  bool run() {
    if (used_ <= shape_.tokens - kTileTokens) clear_unused_tiles();
    if (!encode_side(false) || !encode_side(true)) return false;
    write_trailer();
    const Bytes sum_at = layout_.trailer() + kTrailerChecksum;
    add_lines(layout_.key_metadata(0), layout_.trailer());
    std::uint64_t sum = sums_.total() + checksum_mix(static_cast<std::uint64_t>(sum_at));
    for (Bytes at = layout_.trailer(); at < sum_at; at += 8) {
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
    bool in_values;
    ElementFormat format;
    int group;
    const Rows& rows;
    bool has_bias;
    int rotation;
    LaneQuantizer quantizer;
    WriteTile write;
  };

  bool encode_side(bool in_values) {
    const ElementFormat& format = in_values ? shape_.format.value : shape_.format.key;
    const bool as_is = in_values || quantization(format) == Quantization::none;
    const Side side{
        .in_values = in_values,
        .format = format,
        .group = static_cast<int>(group_elements(format, shape_)),
        .rows = in_values ? request_.values : request_.keys,
        .has_bias = !as_is && request_.known.bias != nullptr,
        .rotation = as_is ? 0 : shape_.format.key_rotation,
        .quantizer = {format, in_values ? request_.scales.value : request_.scales.key},
        .write = writer_of(format, in_values),
    };
    return format.per_channel ? encode_channels(side) : encode_tokens(side);
  }

  // Groups within the vector of a token. Heads are the inner loop, as they lie side by side.
  bool encode_tokens(const Side& side) {
    for (Tokens begin = 0; begin < used_; begin += kTileTokens) {
      if (side.has_bias) turn_bias(begin);
      for (int head = 0; head < shape_.kv_heads; ++head) {
        load_tile(side, head, begin);
        if (!side.in_values) turn_tile();
        if (!fit_tokens(side, head, begin)) return false;
        (this->*side.write)(head, begin, side.group);
      }
    }
    return true;
  }

  bool fit_tokens(const Side& side, int head, Tokens begin) {
    const Bytes metadata = metadata_of(side, head);
    const Words in_use = tokens_in_use(begin);
    Floats poison = broadcast(0.0f);
    Words unfit{};
    for (int dim = 0; dim < dims_; dim += side.group) {
      const int end = std::min(dim + side.group, dims_);
      const Range range =
          side.in_values ? range_across(dim, end, poison) : range_along(dim, end, poison);
      const FittedGroups groups = side.quantizer.fit(range);
      unfit = unfit | groups.unfit;
      keep(groups, dim / side.group * kLanes);
      store_low(page_ + metadata + layout_.scale(side.format, begin, dim), groups.scale & in_use,
                side.format.scale_bytes);
      store_low(page_ + metadata + layout_.zero(side.format, begin, dim), groups.zero & in_use,
                side.format.zero_bytes);
    }
    return !any(unfit | is_poison(poison));
  }

  // Groups of the tokens of a channel: once for their ranges, once for their codes.
  bool encode_channels(const Side& side) {
    for (Tokens begin = 0; begin < used_; begin += side.group) {
      const Tokens end = std::min<Tokens>(begin + side.group, used_);
      for (int head = 0; head < shape_.kv_heads; ++head) {
        if (!fit_channels(side, head, begin, end)) return false;
        for (Tokens tile = begin; tile < end; tile += kTileTokens) {
          if (end - begin > kTileTokens) load_transformed(side, head, tile);
          if (!side.in_values) turn_tile();
          (this->*side.write)(head, tile, side.group);
        }
      }
    }
    return true;
  }

  bool fit_channels(const Side& side, int head, Tokens begin, Tokens end) {
    const Bytes metadata = metadata_of(side, head);
    Floats poison = broadcast(0.0f);
    for (Tokens tile = begin; tile < end; tile += kTileTokens) {
      load_transformed(side, head, tile);
      for (int dim = 0; dim < dims_; dim += kLanes) {
        Range range = range_of_channels(dim, poison);
        if (tile > begin) {
          range.least = lesser(range.least, load(least_ + dim));
          range.most = greater(range.most, load(most_ + dim));
        }
        store(least_ + dim, range.least);
        store(most_ + dim, range.most);
      }
    }
    Words unfit{};
    for (int dim = 0; dim < dims_; dim += kLanes) {
      const FittedGroups groups = side.quantizer.fit({load(least_ + dim), load(most_ + dim)});
      unfit = unfit | groups.unfit;
      keep(groups, dim);
      store_low(page_ + metadata + layout_.scale(side.format, begin, dim), groups.scale,
                side.format.scale_bytes);
      store_low(page_ + metadata + layout_.zero(side.format, begin, dim), groups.zero,
                side.format.zero_bytes);
    }
    return !any(unfit | is_poison(poison));
  }

  void load_transformed(const Side& side, int head, Tokens begin) {
    if (side.has_bias) turn_bias(begin);
    load_tile(side, head, begin);
  }

  // tile_[token][dim], as it is quantized.
  void load_tile(const Side& side, int head, Tokens begin) {
    for (int token = 0; token < kTileTokens; ++token) {
      const Tokens row = std::min(begin + token, used_ - 1);
      const std::uint16_t* from =
          side.rows.elements + row * side.rows.token_stride + head * side.rows.head_stride;
      float* to = tile_ + token * dims_;
      if (side.rows.number == NumberFormat::bf16) {
        for (int dim = 0; dim < dims_; dim += kLanes) store(to + dim, from_bf16(from + dim));
      } else {
        for (int dim = 0; dim < dims_; dim += kLanes) store(to + dim, from_fp16(from + dim));
      }
      if (side.has_bias) subtract_bias(head, token);
      if (side.rotation > 0) rotate(to, side.rotation);
    }
  }

  // Cosines and sines of the tokens of a tile.
  void turn_bias(Tokens begin) {
    const KeyBias& bias = *request_.known.bias;
    for (int token = 0; token < kTileTokens; ++token) {
      const Tokens row = std::min(begin + token, used_ - 1);
      const std::int32_t* position = request_.known.positions.data() + row * bias.sections.axes();
      for (int pair = 0; pair < dims_ / 2; ++pair) {
        const Rotation turn = bias.turn(position, pair);
        cosines_[token][pair] = turn.cosine;
        sines_[token][pair] = turn.sine;
      }
    }
  }

  void subtract_bias(int head, int token) {
    const float* b = request_.known.bias->of_head(head);
    const int half = dims_ / 2;
    float* low = tile_ + token * dims_;
    for (int i = 0; i < half; ++i) {
      const float cosine = cosines_[token][i], sine = sines_[token][i];
      low[i] -= b[i] * cosine - b[i + half] * sine;
      low[i + half] -= b[i + half] * cosine + b[i] * sine;
    }
  }

  // rotate_blocks() of one vector.
  void rotate(float* vector, int order) const {
    Floats parts[kMaxHeadDim / kLanes];
    const int count = dims_ / kLanes, block = order / kLanes;
    for (int i = 0; i < count; ++i)
      parts[i] =
          butterflies<8>(butterflies<4>(butterflies<2>(butterflies<1>(load(vector + i * kLanes)))));
    for (int apart = 1; apart < block; apart *= 2)
      for (int i = 0; i < count; ++i) {
        if ((i & apart) != 0) continue;
        const Floats a = parts[i], b = parts[i + apart];
        parts[i] = a + b;
        parts[i + apart] = a - b;
      }
    for (int i = 0; i < count; ++i) store(vector + i * kLanes, parts[i] * hadamard_scale(order));
  }

  // turned_[dim][token]
  void turn_tile() {
    for (int token = 0; token < kTileTokens; token += kWidth)
      for (int dim = 0; dim < dims_; dim += kWidth) {
        FloatPart rows[kWidth];
        for (int i = 0; i < kWidth; ++i)
          std::memcpy(&rows[i], tile_ + (token + i) * dims_ + dim, sizeof(rows[i]));
        transpose(rows);
        for (int i = 0; i < kWidth; ++i)
          std::memcpy(turned_ + (dim + i) * kLanes + token, &rows[i], sizeof(rows[i]));
      }
  }

  // Of the turned tile: a lane is a token.
  Range range_along(int dim, int end, Floats& poison) const {
    constexpr int kChains = 4;
    Floats least[kChains], most[kChains], bad[kChains];
    for (int i = 0; i < kChains; ++i) {
      least[i] = most[i] = load(turned_ + dim * kLanes);
      bad[i] = poison;
    }
    for (int at = dim; at < end; at += kChains)
      for (int i = 0; i < kChains; ++i)
        see(load(turned_ + (at + i) * kLanes), least[i], most[i], bad[i]);
    poison = (bad[0] + bad[1]) + (bad[2] + bad[3]);
    return {lesser(lesser(least[0], least[1]), lesser(least[2], least[3])),
            greater(greater(most[0], most[1]), greater(most[2], most[3]))};
  }

  // Of the tile as it was loaded: a lane of the result is a token.
  Range range_across(int dim, int end, Floats& poison) const {
    Floats least[kTileTokens], most[kTileTokens];
    for (int token = 0; token < kTileTokens; ++token) {
      const float* vector = tile_ + token * dims_;
      least[token] = most[token] = load(vector + dim);
      Floats bad = broadcast(0.0f);
      for (int at = dim; at < end; at += kLanes)
        see(load(vector + at), least[token], most[token], bad);
      poison = poison + bad;
    }
    return {reduce_rows<true>(least), reduce_rows<false>(most)};
  }

  // A lane is a channel.
  Range range_of_channels(int dim, Floats& poison) const {
    Range range{load(tile_ + dim), load(tile_ + dim)};
    for (int token = 0; token < kTileTokens; ++token)
      see(load(tile_ + token * dims_ + dim), range.least, range.most, poison);
    return range;
  }

  [[gnu::always_inline]] static void see(const Floats& value, Floats& least, Floats& most,
                                         Floats& poison) {
    least = lesser(value, least);
    most = greater(value, most);
    poison = poison + (value - value);  // zeros, until a value is not finite
  }

  static Words is_poison(const Floats& poison) {
    return is_less(broadcast(0u), bits_of(poison) & broadcast(0x7fffffffu));
  }

  void keep(const FittedGroups& groups, int at) {
    store(subtracted_ + at, groups.subtracted);
    store(inverse_ + at, groups.inverse);
    store(added_ + at, groups.added);
  }

  static constexpr bool kPerChannel = true, kPerToken = false;

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
        return integer_writer<8>(format, in_values);
      case NumberFormat::int4:
        return integer_writer<4>(format, in_values);
      case NumberFormat::int2:
        return integer_writer<2>(format, in_values);
    }
    return nullptr;
  }

  template <int bits>
  static WriteTile integer_writer(const ElementFormat& format, bool in_values) {
    switch (quantization(format)) {
      case Quantization::affine:
        return writer<IntegerCoder<bits, Quantization::affine>>(format.per_channel, in_values);
      case Quantization::affine_integer:
        return writer<IntegerCoder<bits, Quantization::affine_integer>>(format.per_channel,
                                                                        in_values);
      default:
        return writer<IntegerCoder<bits, Quantization::symmetric>>(format.per_channel, in_values);
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
    constexpr int deep = 32 / Coder::kBits;
    const int rows = in_values ? dims_ : kTileTokens;
    const int lines = (in_values ? kTileTokens : dims_) / deep;
    const float* from = in_values ? tile_ : turned_;
    const Words tokens = tokens_in_use(begin);
    for (int row = 0; row < rows; row += kLineRows) {
      const Bytes first =
          in_values ? layout_.value_lines(head) +
                          (row / kLineRows * (shape_.tokens / deep) + begin / deep) * kLineBytes
                    : layout_.key_lines(head) + begin / kLineRows * lines * kLineBytes;
      for (int line = 0; line < lines; ++line) {
        const int depth = line * deep;
        // Of the group at this row and depth; where groups run across rows, of this depth first.
        const int at = in_values ? (per_channel ? row : row / group * kLanes + depth)
                                 : (per_channel ? depth : depth / group * kLanes);
        const Words codes =
            word_of<Coder, in_values == per_channel>(from + depth * rows + row, rows, at);
        const Words used = in_values ? depth_in_use<Coder::kBits>(begin + depth) : tokens;
        write_line(first + line * kLineBytes, codes & used);
      }
    }
  }

  template <typename Coder, bool along_depth>
  [[gnu::always_inline]] Words word_of(const float* from, int stride, int at) const {
    constexpr int bits = Coder::kBits, deep = 32 / bits;
    constexpr auto bit_of_element = [](int element) {
      return 16 * (element % 2) + bits * (element / 2);
    };
    constexpr std::uint32_t start = [&] {
      std::uint32_t sum = 0;
      for (int i = 0; i < deep; ++i) sum -= Coder::kExcess << bit_of_element(i);
      return sum;
    }();
    Words word = broadcast(start);
#pragma GCC unroll 16
    for (int i = 0; i < deep; ++i) {
      const Floats value = load(from + i * stride);
      const Words code =
          along_depth
              ? Coder::code(value, load(subtracted_ + at), load(inverse_ + at), load(added_ + at))
              : Coder::code(value, broadcast(subtracted_[at + i]), broadcast(inverse_[at + i]),
                            broadcast(added_[at + i]));
      word = word + (code << bit_of_element(i));
    }
    return word;
  }

  [[gnu::always_inline]] void write_line(Bytes at, const Words& line) {
    std::memcpy(page_ + at, &line, sizeof(line));
    sums_.add(line, static_cast<std::uint64_t>(at / 8));
  }

  // A lane a token: all bits where it is used.
  Words tokens_in_use(Tokens begin) const {
    std::uint32_t masks[kLanes];
    for (int i = 0; i < kLanes; ++i) masks[i] = begin + i < used_ ? ~0u : 0u;
    return __builtin_bit_cast(Words, masks);
  }

  // The bits of a word of V whose tokens, from `first` on, are used.
  template <int bits>
  [[gnu::always_inline]] Words depth_in_use(Tokens first) const {
    constexpr int deep = 32 / bits;
    if (first + deep <= used_) return broadcast(~0u);
    std::uint32_t mask = 0;
    for (int i = 0; i < deep && first + i < used_; ++i)
      mask |= ((1u << bits) - 1) << (16 * (i % 2) + bits * (i / 2));
    return broadcast(mask);
  }

  Bytes metadata_of(const Side& side, int head) const {
    return side.in_values ? layout_.value_metadata(head) : layout_.key_metadata(head);
  }

  void clear_unused_tiles() {
    const Tokens first = round_up(used_, kTileTokens);
    const auto clear = [&](const ElementFormat& format, Bytes lines, int rows, int depth) {
      // Of each run of `depth`, what lies behind `first` tokens.
      const Bytes all = depth / word_elements(format) * kLineBytes;
      const Bytes kept = all * first / shape_.tokens;
      for (int row = 0; row < rows; row += kLineRows)
        for (Bytes at = kept; at < all; at += kLineBytes)
          write_line(lines + row / kLineRows * all + at, Words{});
    };
    for (int head = 0; head < shape_.kv_heads; ++head) {
      clear(shape_.format.key, layout_.key_lines(head), kLineRows,
            static_cast<int>(shape_.tokens / kLineRows) * dims_);
      clear(shape_.format.value, layout_.value_lines(head), dims_, static_cast<int>(shape_.tokens));
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
    std::memcpy(to + kTrailerContentId, &trailer.content.words, sizeof(trailer.content.words));
    std::memcpy(to + kTrailerGeneration, &trailer.generation, sizeof(trailer.generation));
    std::memcpy(to + kTrailerTokens, &trailer.tokens, sizeof(trailer.tokens));
  }

  void add_lines(Bytes begin, Bytes end) {
    for (Bytes at = begin; at < end; at += kLineBytes) {
      Words line;
      std::memcpy(&line, page_ + at, sizeof(line));
      sums_.add(line, static_cast<std::uint64_t>(at / 8));
    }
  }

  const EncodeRequest& request_;
  const PageShape& shape_;
  PageLayout layout_;
  std::byte* page_;
  Tokens used_;
  int dims_;
  Sums sums_;
  alignas(64) float tile_[kMostTileElements];
  alignas(64) float turned_[kMostTileElements];
  // Of each group: a lane for each token of a group of channels, or one for each channel.
  alignas(64) float subtracted_[kMaxHeadDim], inverse_[kMaxHeadDim], added_[kMaxHeadDim];
  alignas(64) float least_[kMaxHeadDim], most_[kMaxHeadDim];
  alignas(64) float cosines_[kTileTokens][kMaxHeadDim / 2], sines_[kTileTokens][kMaxHeadDim / 2];
};

// checksum() by lanes.
std::uint64_t lane_checksum(std::span<const std::byte> bytes) {
  const std::size_t whole = bytes.size() / sizeof(Words) * sizeof(Words);
  Sums sums;
  for (std::size_t at = 0; at < whole; at += sizeof(Words)) {
    Words line;
    std::memcpy(&line, bytes.data() + at, sizeof(line));
    sums.add(line, at / 8);
  }
  std::uint64_t sum = sums.total() + checksum_mix(bytes.size());
  for (std::size_t at = whole; at < bytes.size(); at += 8) {
    std::uint64_t word = 0;
    std::memcpy(&word, bytes.data() + at, std::min<std::size_t>(8, bytes.size() - at));
    sum += checksum_mix(word + (at / 8 + 1) * kChecksumStep);
  }
  return sum;
}

bool encode(const EncodeRequest& request) {
  return PageEncoder(request).run();
}

}  // namespace
}  // namespace modalkv
