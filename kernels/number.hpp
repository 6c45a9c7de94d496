// Small floating-point numbers, bit by bit: the meaning of every stored element and scale. Portable
// and exact; the SIMD kernels are held to them.
#pragma once

#include <bit>
#include <cstdint>

#include "modalkv/format.hpp"

namespace modalkv {
namespace detail {

// To a float with fewer exponent and mantissa bits, nearest, ties to even. `bias` is the
// exponent's. Returns the magnitude's code, not limited: what lies above the largest code has
// overflowed.
constexpr std::uint32_t narrow_magnitude(float magnitude, int mantissa_bits, int bias) {
  const auto bits = std::bit_cast<std::uint32_t>(magnitude);
  const int exponent = static_cast<int>(bits >> 23) - 127;
  std::uint32_t mantissa = (bits & 0x7fffff) | (bits >> 23 == 0 ? 0 : 0x800000);
  // Normal numbers drop 23 - mantissa_bits bits, subnormal ones as many more as they are too small.
  const int below = exponent < 1 - bias ? 1 - bias - exponent : 0;
  const int drop = 23 - mantissa_bits + below;
  if (drop > 24) return 0;
  const std::uint32_t half = (1u << (drop - 1)) - 1 + ((mantissa >> drop) & 1);
  mantissa = (mantissa + half) >> drop;
  if (below > 0) return mantissa;  // a carry makes it the smallest normal number
  return mantissa + (static_cast<std::uint32_t>(exponent + bias - 1) << mantissa_bits);
}

constexpr float widen_magnitude(std::uint32_t code, int mantissa_bits, int bias) {
  const int exponent = static_cast<int>(code >> mantissa_bits);
  const std::uint32_t mantissa = code & ((1u << mantissa_bits) - 1);
  const auto power = [](int e) {
    return std::bit_cast<float>(static_cast<std::uint32_t>(e + 127) << 23);
  };
  const auto units =
      static_cast<float>(exponent == 0 ? mantissa : mantissa + (std::uint32_t{1} << mantissa_bits));
  return units * power((exponent == 0 ? 1 : exponent) - bias - mantissa_bits);
}

}  // namespace detail

/// IEEE binary16, nearest, ties to even; beyond 65504 infinity.
constexpr std::uint16_t to_fp16(float value) {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  const auto sign = static_cast<std::uint16_t>(bits >> 16 & 0x8000);
  const std::uint32_t magnitude = bits & 0x7fffffff;
  if (magnitude > 0x7f800000) return static_cast<std::uint16_t>(sign | 0x7e00);
  const std::uint32_t code =
      magnitude == 0x7f800000 ? 0x7c00
                              : detail::narrow_magnitude(std::bit_cast<float>(magnitude), 10, 15);
  return static_cast<std::uint16_t>(sign | (code > 0x7c00 ? 0x7c00 : code));
}

constexpr float from_fp16(std::uint16_t code) {
  const std::uint32_t sign = static_cast<std::uint32_t>(code & 0x8000) << 16;
  const std::uint32_t magnitude = code & 0x7fff;
  if (magnitude >= 0x7c00)
    return std::bit_cast<float>(sign | 0x7f800000 | (magnitude & 0x3ff) << 13);
  const float value = detail::widen_magnitude(magnitude, 10, 15);
  return std::bit_cast<float>(sign | std::bit_cast<std::uint32_t>(value));
}

/// bfloat16, nearest, ties to even.
constexpr std::uint16_t to_bf16(float value) {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  if ((bits & 0x7fffffff) > 0x7f800000) return static_cast<std::uint16_t>(bits >> 16 | 0x40);
  return static_cast<std::uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

constexpr float from_bf16(std::uint16_t code) {
  return std::bit_cast<float>(static_cast<std::uint32_t>(code) << 16);
}

/// Of an engine's rows: fp16 or bf16.
constexpr float from_16bit(std::uint16_t code, NumberFormat number) {
  return number == NumberFormat::bf16 ? from_bf16(code) : from_fp16(code);
}

constexpr std::uint16_t to_16bit(float value, NumberFormat number) {
  return number == NumberFormat::bf16 ? to_bf16(value) : to_fp16(value);
}

inline constexpr float kLargestE4m3 = 448;

/// OCP E4M3 (no infinity), nearest, ties to even, at most 448 in magnitude.
constexpr std::uint8_t to_e4m3(float value) {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  const auto sign = static_cast<std::uint8_t>(bits >> 24 & 0x80);
  const std::uint32_t magnitude = bits & 0x7fffffff;
  if (magnitude > 0x7f800000) return static_cast<std::uint8_t>(sign | 0x7f);
  const std::uint32_t code = magnitude >= 0x7f800000
                                 ? 0x7f
                                 : detail::narrow_magnitude(std::bit_cast<float>(magnitude), 3, 7);
  return static_cast<std::uint8_t>(sign | (code > 0x7e ? 0x7e : code));
}

constexpr float from_e4m3(std::uint8_t code) {
  const std::uint32_t sign = static_cast<std::uint32_t>(code & 0x80) << 24;
  if ((code & 0x7f) == 0x7f) return std::bit_cast<float>(sign | 0x7fc00000);
  const float value = detail::widen_magnitude(code & 0x7f, 3, 7);
  return std::bit_cast<float>(sign | std::bit_cast<std::uint32_t>(value));
}

/// The smallest E4M3 that is not below `magnitude` (>= 0); 448 where there is none.
constexpr std::uint8_t to_e4m3_upwards(float magnitude) {
  const std::uint8_t nearest = to_e4m3(magnitude);
  return from_e4m3(nearest) < magnitude && nearest < 0x7e ? static_cast<std::uint8_t>(nearest + 1)
                                                          : nearest;
}

inline constexpr float kLargestE2m1 = 6;

/// OCP E2M1 in the low four bits, nearest, ties to even, at most 6 in magnitude.
constexpr std::uint8_t to_e2m1(float value) {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  const auto sign = static_cast<std::uint8_t>(bits >> 28 & 8);
  const std::uint32_t magnitude = bits & 0x7fffffff;
  const std::uint32_t code =
      magnitude >= 0x7f800000 ? 7 : detail::narrow_magnitude(std::bit_cast<float>(magnitude), 1, 1);
  return static_cast<std::uint8_t>(sign | (code > 7 ? 7 : code));
}

constexpr float from_e2m1(std::uint8_t code) {
  const float value = detail::widen_magnitude(code & 7, 1, 1);
  return (code & 8) != 0 ? -value : value;
}

/// OCP E8M0: a power of two, 2^(code - 127).
constexpr float from_e8m0(std::uint8_t code) {
  return code == 0 ? std::bit_cast<float>(0x00400000u)
                   : std::bit_cast<float>(static_cast<std::uint32_t>(code) << 23);
}

}  // namespace modalkv
