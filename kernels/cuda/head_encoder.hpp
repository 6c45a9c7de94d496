// Encoding one side of one head by a warp: ranges of groups meet in shared memory, each group is
// fitted by one lane, codes become words in registers and go out in pieces of 32 bytes.
#pragma once

#include <algorithm>

#include "kernels/cuda/byte_sums.hpp"
#include "kernels/cuda/device_quantizer.hpp"
#include "kernels/cuda/lane_tile.hpp"

namespace modalkv::MODALKV_GPU {

/// Of a warp: ranges, then coefficients and metadata of its groups.
template <bool wide>
struct EncoderRoom {
  static constexpr int kGroups = wide ? 256 : 128;  // channels, or tokens x groups of 16 of a pass

  float2 ranges[256];  // [octet][token], or [half][channel]
  alignas(16) std::byte metadata[4 * kGroups];
  float subtracted[kGroups], inverse[kGroups], added[kGroups];
};

template <class Coder, bool per_channel, bool in_values, bool wide>
class HeadEncoder {
 public:
  static constexpr int kBits = Coder::kBits;
  static constexpr bool kHalves = kBits == 16;
  using Room = EncoderRoom<wide>;
  using Lane = TileLane<wide>;

  /// `turns`: of the tile that is loaded, for keys with a known bias.
  __device__ HeadEncoder(const PageBatch& batch, const DevicePage& page, int head, Room& room,
                         const float2* turns)
      : batch_(batch),
        page_(page),
        places_(batch.shape, batch.layout, head),
        head_(head),
        dims_(batch.shape.head_dim),
        room_(room),
        turns_(turns) {}

  /// The rows of a pass of the tile from `begin` on, as they are quantized.
  __device__ void load(Tokens begin, int pass) {
    const std::uint16_t* rows = in_values ? page_.values : page_.keys;
    const std::int64_t stride = std::int64_t{batch_.shape.kv_heads} * dims_;
    const bool bf16 = batch_.number == NumberFormat::bf16;
    rows += std::int64_t{head_} * dims_ + at_.first_channel();
    uint4 octets[kOctet];
    SIMT_UNROLL
    for (int t = 0; t < kOctet; ++t) {
      octets[t] = make_uint4(0, 0, 0, 0);
      // Unused tokens are copies of the last one, which changes no range.
      const Tokens token = std::min<Tokens>(begin + at_.first_token(pass) + t, page_.tokens - 1);
      if (at_.first_channel() < dims_) octets[t] = load_octet(rows + token * stride, page_.aligned);
    }
    SIMT_UNROLL
    for (int t = 0; t < kOctet; ++t) widen(octets[t], bf16, values_[t]);
    if constexpr (!in_values && !kHalves) {
      if (batch_.bias.elements != nullptr)
        add_bias(values_, batch_.bias.elements + head_ * dims_, dims_,
                 turns_ + at_.first_token(pass) * (dims_ / 2), -1.0f, at_.first_channel());
      if (batch_.shape.format.key_rotation > 0)
        rotate_rows(values_, batch_.shape.format.key_rotation);
    }
  }

  /// For pages of 16 bits: whether they can hold the rows.
  __device__ void check() {
    SIMT_UNROLL
    for (int t = 0; t < kOctet; ++t) {
      SIMT_UNROLL
      for (int c = 0; c < kOctet; ++c) {
        add_poison(values_[t][c]);
        largest_ = fmaxf(largest_, fabsf(values_[t][c]));
      }
    }
  }

  /// Of a pass for groups within vectors; for groups of tokens, of the `first` and further ones.
  __device__ void find_ranges(bool first) {
    if constexpr (!per_channel) {
      SIMT_UNROLL
      for (int t = 0; t < kOctet; ++t) {
        float2 range = make_float2(values_[t][0], values_[t][0]);
        SIMT_UNROLL
        for (int c = 0; c < kOctet; ++c) widen_range(range, values_[t][c]);
        room_.ranges[at_.octet * Lane::kTokens + token_of_pass(t)] = range;
      }
    } else {
      SIMT_UNROLL
      for (int c = 0; c < kOctet; ++c) {
        float2& place =
            room_.ranges[token_of_pass(0) / kOctet * Room::kGroups + at_.first_channel() + c];
        float2 range = first ? make_float2(values_[0][c], values_[0][c]) : place;
        SIMT_UNROLL
        for (int t = 0; t < kOctet; ++t) widen_range(range, values_[t][c]);
        place = range;
      }
    }
  }

  /// The groups of a pass, or of the channels from `begin` on: coefficients and metadata. Begins
  /// and ends in a barrier of the warp, so that what write() reads is not what a later pass makes.
  __device__ void fit(Tokens begin, int pass) {
    __syncwarp();
    const float tensor_scale = in_values ? batch_.value_scale : batch_.key_scale;
    ElementFormat format = places_.format;
    format.number = Coder::number(format.number);
    const int row = per_channel ? dims_ : kLineRows;  // scales of a row, then its zeros
    const int tokens = Lane::kTokens, pair = format.scale_bytes + format.zero_bytes;
    const int groups = per_channel ? dims_ : tokens * places_.vector_groups;
    for (int i = at_.lane; i < groups; i += 32) {
      const float2 range = per_channel ? range_of_channel(i) : range_of_group(i);
      GroupScale group = fit_scale(format, range.x, range.y, tensor_scale);
      if (!(group.scale > -INFINITY && group.scale < INFINITY)) poison_ = NAN;
      const Coefficients made = coefficients(format, group);
      room_.subtracted[i] = made.subtracted;
      room_.inverse[i] = made.inverse;
      room_.added[i] = made.added;
      const int place = per_channel ? i : i % tokens + pass * tokens;
      if (begin + (per_channel ? 0 : place) >= page_.tokens)
        group.stored_scale = group.stored_zero = 0;
      std::byte* scales = room_.metadata + (per_channel ? 0 : i / tokens * row * pair);
      put(scales + place * format.scale_bytes, group.stored_scale, format.scale_bytes);
      put(scales + row * format.scale_bytes + place * format.zero_bytes, group.stored_zero,
          format.zero_bytes);
    }
    __syncwarp();
  }

  /// What fit() has made of a tile, or of channels.
  __device__ void write_metadata(Tokens begin) {
    const Bytes to = places_.scale_row(static_cast<int>(begin), 0);
    const int groups = per_channel ? dims_ : kLineRows * places_.vector_groups;
    const int bytes = groups * (places_.format.scale_bytes + places_.format.zero_bytes);
    for (int at = 16 * at_.lane; at < bytes; at += 16 * 32)
      store(to + at, *reinterpret_cast<const uint4*>(room_.metadata + at));
  }

  /// The words of a pass.
  __device__ void write(Tokens begin, int pass) {
    constexpr int of_a_word = std::min(32 / kBits, kOctet);  // elements of this lane
    const bool is_symmetric = quantization(places_.format) == Quantization::symmetric;
    const float lowest = kToInteger + (is_symmetric ? 1.0f : 0.0f);
    const float highest = kToInteger + static_cast<float>((1 << kBits) - 1);
    Coefficients with[kOctet];  // of each channel, or of each token
    if (!kHalves && at_.first_channel() < dims_) {
      const int first =
          per_channel ? at_.first_channel()
                      : at_.first_channel() / places_.group * Lane::kTokens + token_of_pass(0);
      SIMT_UNROLL
      for (int i = 0; i < kOctet; ++i)
        with[i] = {room_.subtracted[first + i], room_.inverse[first + i], room_.added[first + i]};
    }
    SIMT_UNROLL
    for (int depth = 0; depth < kOctet; depth += of_a_word) {
      std::uint32_t words[kOctet];
      SIMT_UNROLL
      for (int row = 0; row < kOctet; ++row) {
        words[row] = 0u - Coder::excess();
        SIMT_UNROLL
        for (int e = 0; e < of_a_word; ++e) {
          // Of K rows are tokens and depth is channels, of V the other way round.
          const int t = in_values ? depth + e : row, c = in_values ? row : depth + e;
          words[row] += Coder::code(values_[t][c], with[per_channel ? c : t], lowest, highest,
                                    places_.format.number)
                        << (16 * (e % 2) + kBits * (e / 2));
        }
      }
      write_words(begin, pass, depth, words);
    }
  }

  __device__ bool is_good() const {
    return poison_ == 0 && (places_.format.number != NumberFormat::fp16 || largest_ <= 65519.996f);
  }
  /// Of what was stored: a part of the page's checksum.
  __device__ std::uint64_t sum() const { return sum_; }
  __device__ int group() const { return places_.group; }

 private:
  // Zero times what is not a finite number is none.
  __device__ void add_poison(float value) { poison_ = __fmaf_rn(value, 0.0f, poison_); }

  __device__ void widen_range(float2& range, float value) {
    range.x = fminf(range.x, value);
    range.y = fmaxf(range.y, value);
    add_poison(value);
  }

  // Of the lane's token `t`, in its pass.
  __device__ int token_of_pass(int t) const { return (wide ? 0 : at_.lane / 16 * kOctet) + t; }

  __device__ float2 range_of_channel(int channel) const {
    const float2 a = room_.ranges[channel];
    if (wide) return a;
    const float2 b = room_.ranges[Room::kGroups + channel];
    return make_float2(fminf(a.x, b.x), fmaxf(a.y, b.y));
  }
  __device__ float2 range_of_group(int i) const {
    const int token = i % Lane::kTokens, first = i / Lane::kTokens * places_.group;
    const int end = std::min(first + places_.group, dims_) / kOctet;
    float2 range = room_.ranges[first / kOctet * Lane::kTokens + token];
    for (int octet = first / kOctet + 1; octet < end; ++octet) {
      const float2 more = room_.ranges[octet * Lane::kTokens + token];
      range = make_float2(fminf(range.x, more.x), fmaxf(range.y, more.y));
    }
    return range;
  }

  __device__ static void put(std::byte* to, std::uint16_t value, int bytes) {
    if (bytes == 2)
      *reinterpret_cast<std::uint16_t*>(to) = value;
    else if (bytes == 1)
      *to = static_cast<std::byte>(value);
  }

  // 16 bytes of the page, and their terms of its checksum.
  __device__ void store(Bytes at, const uint4& words) {
    *reinterpret_cast<uint4*>(page_.page + at) = words;
    sum_ += checksum_term(words.x | std::uint64_t{words.y} << 32, at);
    sum_ += checksum_term(words.z | std::uint64_t{words.w} << 32, at + 8);
  }

  // A word of each of the lane's eight rows, from `depth` on: 32 bytes of a line.
  __device__ void write_words(Tokens begin, int pass, int depth, std::uint32_t (&words)[kOctet]) {
    const Tokens token = begin + at_.first_token(pass);
    if (token + kOctet > page_.tokens) cut(page_.tokens - token, depth, words);
    const int channel = at_.first_channel();
    const int at = static_cast<int>(token) + (in_values ? depth : 0);
    const Bytes word = places_.word(at, channel + (in_values ? 0 : depth));
    if constexpr (kBits > 2) {
      store_rows(word, words);
    } else if constexpr (wide && in_values) {
      // The second pass has the other half of these words.
      SIMT_UNROLL
      for (int row = 0; row < kOctet; ++row) {
        if (pass == 0)
          first_[row] = words[row];
        else
          words[row] = first_[row] | words[row] << 8;
      }
      if (pass == 1) store_rows(word, words);
    } else {
      // Another lane has the other half of these words: each stores half of the rows.
      std::uint32_t whole[4];
      const bool upper = exchange < in_values ? 16 : 1 > (words, whole);
      SIMT_UNROLL
      for (int i = 0; i < 4; ++i) {
        const std::uint32_t mine = upper ? words[4 + i] : words[i];
        whole[i] = upper ? whole[i] | mine << 8 : mine | whole[i] << 8;
      }
      if (channel < dims_)
        store(word + (upper ? 16 : 0), make_uint4(whole[0], whole[1], whole[2], whole[3]));
    }
  }

  // Eight rows to `word`. Two lanes together store 32 bytes at once, those of the one and then of
  // the other: memory takes no less without a mask.
  __device__ void store_rows(Bytes word, const std::uint32_t (&words)[kOctet]) {
    std::uint32_t got[4];
    const bool upper = exchange<1>(words, got);
    const Bytes of_other = __shfl_xor_sync(~0u, word, 1);
    const uint4 theirs = make_uint4(got[0], got[1], got[2], got[3]);
    const uint4 mine = upper ? make_uint4(words[4], words[5], words[6], words[7])
                             : make_uint4(words[0], words[1], words[2], words[3]);
    if (at_.first_channel() >= dims_) return;
    const int rows = upper ? 16 : 0;
    store((upper ? of_other : word) + rows, upper ? theirs : mine);
    store((upper ? word : of_other) + rows, upper ? mine : theirs);
  }

  // The lower of two lanes, `other` apart, gets the first four words of the upper, and this one the
  // last four of the lower. Whether this is the upper.
  template <int other>
  __device__ bool exchange(const std::uint32_t (&words)[kOctet], std::uint32_t (&got)[4]) const {
    const bool upper = (at_.lane & other) != 0;
    SIMT_UNROLL
    for (int i = 0; i < 4; ++i)
      got[i] = __shfl_xor_sync(~0u, upper ? words[i] : words[4 + i], other);
    return upper;
  }

  // Zeros in place of tokens behind the first `left`.
  __device__ void cut(Tokens left, int depth, std::uint32_t (&words)[kOctet]) const {
    std::uint32_t mask = 0;
    SIMT_UNROLL
    for (int e = 0; e < std::min(32 / kBits, kOctet); ++e)
      if (depth + e < left) mask |= ((1u << kBits) - 1) << (16 * (e % 2) + kBits * (e / 2));
    SIMT_UNROLL
    for (int row = 0; row < kOctet; ++row) words[row] &= in_values ? mask : row < left ? ~0u : 0u;
  }

  const PageBatch& batch_;
  const DevicePage& page_;
  const SidePlaces<kBits, in_values> places_;
  const int head_, dims_;
  Room& room_;
  const float2* turns_;
  Lane at_;
  LaneValues values_;
  std::uint32_t first_[kOctet];  // words of V, half made
  float poison_ = 0, largest_ = 0;
  std::uint64_t sum_ = 0;
};

}  // namespace modalkv::MODALKV_GPU
