// Lines of a page (kernels/page_layout.md) in shared memory become the A operand of
// mma.m16n8k16: 16 rows by 16 depth positions. Lane 4 g + t gets words 2 g and 2 g + 1 of a line,
// which become the operand's rows g and g + 8, and a quarter of the depth positions. Which ones is
// free as long as the other operand is laid alike: depth_position() says it.
//
// Operations for each operand word: a shift, a mask with the exponent, a subtraction for integers;
// two shifts and two masks for E4M3 and E2M1; none for 16 bits.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/cuda/element_traits.hpp"
#include "kernels/cuda/gpu_launch.hpp"
#include "kernels/page_layout.hpp"
#include "kernels/simt/simt.hpp"

namespace modalkv::MODALKV_GPU {

/// A lane's place in fragments.
struct Lane {
  int index, g, t;
  __device__ Lane() : index(static_cast<int>(threadIdx.x % 32)), g(index / 4), t(index % 4) {}
};

/// The first of the two depth positions of a lane's `pair`, within a unit.
template <int unit>
__device__ inline int depth_position(const ElementFormat& format, int t, int pair) {
  if (payload_bits(format.number) == 16) return 8 * pair + 2 * t;
  return t * (unit / 4) + 2 * pair;
}

/// Where a line's 16-byte piece lies in shared memory: pieces of lines 2 and 3 of each four change
/// places, so that the lanes of half a warp find their words in different banks.
__device__ inline int piece_offset(int line, int piece) {
  return line * 64 + ((piece ^ (line & 2)) * 16);
}

__device__ inline uint2 row_pair(const std::byte* lines, int line, const Lane& lane) {
  return *reinterpret_cast<const uint2*>(lines + piece_offset(line, lane.g / 2) + lane.g % 2 * 8);
}

/// Two neighbours in depth of one row as 16-bit floats.
__device__ inline std::uint32_t operand_word(const ElementFormat& format, std::uint32_t word,
                                             int pair) {
  switch (format.number) {
    case NumberFormat::int8:
      return simt::sub_f16x2((word >> 8 * pair & 0x00ff00ffu) | 0x64006400u, 0x64806480u);
    case NumberFormat::int4:
      return simt::sub_f16x2((word >> 4 * pair & 0x000f000fu) | 0x64006400u, 0x64086408u);
    case NumberFormat::int2:
      return simt::sub_f16x2((word >> 2 * pair & 0x00030003u) | 0x64006400u, 0x64026402u);
    case NumberFormat::fp8_e4m3: {
      const std::uint32_t high = pair == 0 ? word << 8 : word;
      return (high & 0x80008000u) | (high >> 1 & 0x3f803f80u);
    }
    case NumberFormat::nvfp4:
    case NumberFormat::mxfp4: {
      const std::uint32_t high = word << (12 - 4 * pair);
      return (high & 0x80008000u) | (high >> 3 & 0x0e000e00u);
    }
    case NumberFormat::fp16:
    case NumberFormat::bf16:
      break;
  }
  return word;
}

/// The operands of a unit whose first line is `first`: one for each 16 depth positions.
template <int unit, class Format>
__device__ MODALKV_INLINE void load_operands(const Format& format, const std::byte* lines,
                                             int first, const Lane& lane,
                                             std::uint32_t (&a)[unit / 16][4]) {
  const ElementFormat element = format.get();
  const int bits = payload_bits(element.number);
  if (bits == 16) {
    const uint2 low = row_pair(lines, first + lane.t, lane);
    const uint2 high = row_pair(lines, first + lane.t + 4, lane);
    a[0][0] = low.x;
    a[0][1] = low.y;
    a[0][2] = high.x;
    a[0][3] = high.y;
    return;
  }
  const int deep = 32 / bits, begin = lane.t * (unit / 4);
  uint2 words = row_pair(lines, first + begin / deep, lane);
  if (unit < 4 * deep) {  // lanes share a word
    const int shift = begin % deep / 2 * bits;
    words = make_uint2(words.x >> shift, words.y >> shift);
  }
  MODALKV_UNROLL
  for (int pair = 0; pair < unit / 8; ++pair) {
    a[pair / 2][pair % 2 * 2] = operand_word(element, words.x, pair);
    a[pair / 2][pair % 2 * 2 + 1] = operand_word(element, words.y, pair);
  }
}

/// d += a b, in the operands that a format's numbers become.
template <class Format>
__device__ MODALKV_INLINE void multiply(const Format& format, float (&d)[4],
                                        const std::uint32_t (&a)[4], const std::uint32_t (&b)[2]) {
  if (format.get().number == NumberFormat::bf16) {
    simt::mma_bf16(d, a, b);
  } else {
    simt::mma_f16(d, a, b);
  }
}

/// Two floats as operand words that sum to them.
struct Terms {
  std::uint32_t high, low;
};
template <class Format>
__device__ MODALKV_INLINE Terms in_two_terms(const Format& format, float first, float second) {
  if (format.get().number == NumberFormat::bf16) {
    const std::uint32_t high = simt::pack_bf16x2(first, second);
    return {high, simt::pack_bf16x2(first - simt::low_bf16(high), second - simt::high_bf16(high))};
  }
  const std::uint32_t high = simt::pack_f16x2(first, second);
  return {high, simt::pack_f16x2(first - simt::low_f16(high), second - simt::high_f16(high))};
}

/// Of one row: value = level * scale + zero.
struct Scale {
  float scale, zero;
};

/// From stored bits, with levels centred; without a stored scale 1.
__device__ inline Scale centred_scale(const ElementFormat& format, std::uint32_t scale,
                                      std::uint32_t zero) {
  Scale stored{1, 0};
  if (format.scale_bytes == 2) {
    stored.scale = simt::low_f16(scale);
  } else if (format.scale_bytes == 1 && format.number == NumberFormat::mxfp4) {
    stored.scale = __uint_as_float(scale == 0 ? 0x00400000u : scale << 23);
  } else if (format.scale_bytes == 1) {
    stored.scale = simt::low_f16((scale & 0x7f) << 7 | (scale & 0x80) << 8) * 0x1p8f;
  }
  if (format.zero_bytes == 2) {
    stored.zero = simt::low_f16(zero) + static_cast<float>(centre(format)) * stored.scale;
  } else if (format.zero_bytes == 1) {
    const int integer = static_cast<std::int8_t>(static_cast<std::uint8_t>(zero));
    stored.zero = static_cast<float>(centre(format) - integer) * stored.scale;
  }
  return stored;
}

struct ScalePair {
  Scale first, second;
};

__device__ inline std::uint32_t stored_bits(const std::byte* at, int bytes) {
  if (bytes == 2) return *reinterpret_cast<const std::uint16_t*>(at);
  return bytes == 1 ? static_cast<std::uint32_t>(*at) : 0;
}

/// Of rows 2 g and 2 g + 1 of 16 tokens, from the 16 scales of a group and the zeros behind them.
template <class Format>
__device__ MODALKV_INLINE ScalePair row_scales(const Format& format, const std::byte* scales,
                                               const Lane& lane) {
  const ElementFormat element = format.get();
  const auto pair = [&](const std::byte* at, int bytes) {
    return bytes == 2   ? *reinterpret_cast<const std::uint32_t*>(at + 4 * lane.g)
           : bytes == 1 ? std::uint32_t{*reinterpret_cast<const std::uint16_t*>(at + 2 * lane.g)}
                        : 0u;
  };
  const int scale_bits = 8 * element.scale_bytes, zero_bits = 8 * element.zero_bytes;
  const std::uint32_t s = pair(scales, element.scale_bytes);
  const std::uint32_t z = pair(scales + 16 * element.scale_bytes, element.zero_bytes);
  const auto low = [](std::uint32_t word, int bits) { return word & ((1u << bits) - 1); };
  return {centred_scale(element, low(s, scale_bits), low(z, zero_bits)),
          centred_scale(element, s >> scale_bits, z >> zero_bits)};
}

/// Of a channel, where metadata is per channel: from the begin of `dims` scales.
__device__ inline Scale channel_scale(const ElementFormat& format, const std::byte* scales,
                                      int dims, int channel) {
  const std::byte* zeros = scales + dims * format.scale_bytes;
  return centred_scale(format,
                       stored_bits(scales + channel * format.scale_bytes, format.scale_bytes),
                       stored_bits(zeros + channel * format.zero_bytes, format.zero_bytes));
}

/// An E4M3 scale, not negative, in both halves, times 2^6: E2M1 operands times it are their values
/// times 2^-8.
__device__ inline std::uint32_t operand_scale(std::uint32_t halves) {
  return simt::mul_f16x2(halves << 7, 0x74007400u);
}

/// The largest power of two that is not above `scale`, and one over it.
struct Unit {
  float unit, inverse;
};
__device__ inline Unit power_below(float scale) {
  const std::uint32_t bits = __float_as_uint(scale) & 0x7f800000u;
  const std::uint32_t limited = bits < 1u << 23 ? 1u << 23 : bits > 253u << 23 ? 253u << 23 : bits;
  return {__uint_as_float(limited), __uint_as_float((254u << 23) - limited)};
}

/// The largest of a column of fragments: of the eight lanes that share t.
__device__ inline float most_of_column(float value) {
  for (int lanes = 4; lanes < 32; lanes *= 2)
    value = fmaxf(value, __shfl_xor_sync(~0u, value, lanes));
  return value;
}
__device__ inline float sum_of_column(float value) {
  for (int lanes = 4; lanes < 32; lanes *= 2) value += __shfl_xor_sync(~0u, value, lanes);
  return value;
}

}  // namespace modalkv::MODALKV_GPU
