// The arithmetic of kernels/quantizer.hpp for a GPU's lanes: fit_scale() itself, and codes by what
// takes few instructions. Bit for bit the same; nothing may be contracted (--fmad=false).
#pragma once

#include <bit>
#include <cstdint>

#include "kernels/cuda/gpu_launch.hpp"
#include "kernels/quantizer.hpp"
#include "kernels/simt/simt.hpp"

namespace modalkv::MODALKV_GPU {

/// What elements of a group are coded with: code = limited(round((v - subtracted) inverse) + added)
/// for integers, number(v inverse) for others.
struct Coefficients {
  float subtracted = 0, inverse = 0, added = 0;
};

__device__ inline Coefficients coefficients(const ElementFormat& format, const GroupScale& group) {
  Coefficients made;
  made.inverse = group.scale > 0 ? 1 / group.scale : 0;
  switch (quantization(format)) {
    case Quantization::affine:
      made.subtracted = group.zero;
      break;
    case Quantization::affine_integer:
      made.added = static_cast<float>(static_cast<std::int8_t>(group.stored_zero));
      break;
    case Quantization::symmetric:
      made.added = static_cast<float>(1 << (payload_bits(format.number) - 1));
      break;
    default:
      break;
  }
  return made;
}

/// detail::narrow_magnitude() without branches.
template <int mantissa_bits, int bias>
__device__ std::uint32_t narrow(float magnitude) {
  constexpr int drop = 23 - mantissa_bits;
  const std::uint32_t bits = __float_as_uint(magnitude);
  const std::uint32_t normal = ((bits + ((1u << (drop - 1)) - 1) + (bits >> drop & 1u)) >> drop) -
                               (std::uint32_t{127 - bias} << mantissa_bits);
  // A sum whose last place is the unit of subnormal numbers.
  constexpr auto unit_at_end = std::uint32_t{127 + 24 - bias - mantissa_bits} << 23;
  constexpr auto least_normal = std::uint32_t{128 - bias} << 23;
  const std::uint32_t subnormal =
      __float_as_uint(magnitude + __uint_as_float(unit_at_end)) - unit_at_end;
  return bits < least_normal ? subnormal : normal;
}

/// What is added to a float below 2^22 so that it ends in its nearest integer, ties to even.
inline constexpr float kToInteger = 0x1.8p23f;

/// Coders: an element to its code. number() is the format's, as far as the coder does not tell it.
/// A word of codes begins at minus excess().
struct E4m3Coder {
  __device__ static constexpr NumberFormat number(NumberFormat) { return NumberFormat::fp8_e4m3; }
  static constexpr int kBits = 8;
  __device__ static constexpr std::uint32_t excess() { return 0; }
  __device__ static std::uint32_t code(float value, const Coefficients& with, float, float,
                                       NumberFormat) {
    const float scaled = value * with.inverse;
    const std::uint32_t magnitude = narrow<3, 7>(fabsf(scaled));
    return (__float_as_uint(scaled) >> 24 & 0x80u) | (magnitude < 0x7eu ? magnitude : 0x7eu);
  }
};

struct E2m1Coder {
  __device__ static constexpr NumberFormat number(NumberFormat number) {
    return number == NumberFormat::mxfp4 ? NumberFormat::mxfp4 : NumberFormat::nvfp4;
  }
  static constexpr int kBits = 4;
  __device__ static constexpr std::uint32_t excess() { return 0; }
  __device__ static std::uint32_t code(float value, const Coefficients& with, float, float,
                                       NumberFormat) {
    const float scaled = value * with.inverse;
    const std::uint32_t magnitude = narrow<1, 1>(fabsf(scaled));
    return (__float_as_uint(scaled) >> 28 & 8u) | (magnitude < 7u ? magnitude : 7u);
  }
};

/// FP16 and BF16.
struct HalfCoder {
  __device__ static constexpr NumberFormat number(NumberFormat number) { return number; }
  static constexpr int kBits = 16;
  __device__ static constexpr std::uint32_t excess() { return 0; }
  __device__ static std::uint32_t code(float value, const Coefficients&, float, float,
                                       NumberFormat number) {
    return (number == NumberFormat::bf16 ? simt::pack_bf16x2(value, 0)
                                         : simt::pack_f16x2(value, 0));
  }
};

/// The code comes at the end of a float. Before it is limited, |(v - subtracted) inverse| is below
/// 2^21: the zero is off by at most 2^-11 of the group's least element, and a group that is not
/// constant spans at least 2^-24 of it, so the scale is at least 2^-24 / 255 of it.
template <int bits>
struct IntegerCoder {
  static constexpr int kBits = bits;
  __device__ static constexpr NumberFormat number(NumberFormat) {
    return bits == 8 ? NumberFormat::int8 : bits == 4 ? NumberFormat::int4 : NumberFormat::int2;
  }
  __device__ static constexpr std::uint32_t excess() {
    std::uint32_t sum = 0;
    for (int e = 0; e < 32 / bits && e < 8; ++e)  // of the elements that a lane has of a word
      sum += std::bit_cast<std::uint32_t>(kToInteger) << (16 * (e % 2) + bits * (e / 2));
    return sum;
  }
  /// `lowest` and `highest`: limits of codes, with kToInteger added.
  __device__ static std::uint32_t code(float value, const Coefficients& with, float lowest,
                                       float highest, NumberFormat) {
    const float scaled = (value - with.subtracted) * with.inverse;
    const float rounded = (scaled + kToInteger) + with.added;
    return __float_as_uint(fminf(fmaxf(rounded, lowest), highest));
  }
};

}  // namespace modalkv::MODALKV_GPU
