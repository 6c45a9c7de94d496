// The arithmetic of one group of elements that share a scale, operation by operation in binary32,
// each rounded to nearest, ties to even, nothing contracted: every target makes the same codes.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>

#include "kernels/number.hpp"
#include "modalkv/format.hpp"

namespace modalkv {

/// How a number format is quantized; by it every kernel chooses its path.
enum class Quantization : std::uint8_t {
  none,            ///< 16 bits
  affine,          ///< value = code * scale + zero; zero is the group's least value, in FP16
  affine_integer,  ///< value = (code - zero) * scale; zero is an integer of 8 bits, signed
  symmetric,       ///< value = (code - 2^(bits - 1)) * scale
  floating,        ///< value = number(code) * scale
};

constexpr Quantization quantization(const ElementFormat& format) {
  switch (format.number) {
    case NumberFormat::fp16:
    case NumberFormat::bf16:
      return Quantization::none;
    case NumberFormat::fp8_e4m3:
    case NumberFormat::nvfp4:
    case NumberFormat::mxfp4:
      return Quantization::floating;
    case NumberFormat::int8:
    case NumberFormat::int4:
    case NumberFormat::int2:
      break;
  }
  if (format.zero_bytes == 0) return Quantization::symmetric;
  return format.zero_bytes == 1 ? Quantization::affine_integer : Quantization::affine;
}

/// A group's scale and zero as stored, and what they mean: value = level * scale + zero, where the
/// level of an integer code is the code, and of a floating one the number it stands for.
struct GroupScale {
  std::uint16_t stored_scale = 0, stored_zero = 0;
  float scale = 1, zero = 0;
};

/// From the stored bits. Without a stored scale the scale is `tensor_scale`.
constexpr GroupScale stored_scale(const ElementFormat& format, std::uint16_t scale,
                                  std::uint16_t zero, float tensor_scale) {
  if (quantization(format) == Quantization::none) return {};
  GroupScale group{scale, zero, tensor_scale, 0};
  if (format.scale_bytes == 2) {
    group.scale = from_fp16(scale);
  } else if (format.scale_bytes == 1) {
    group.scale = format.number == NumberFormat::mxfp4
                      ? from_e8m0(static_cast<std::uint8_t>(scale))
                      : from_e4m3(static_cast<std::uint8_t>(scale));
  }
  switch (quantization(format)) {
    case Quantization::affine:
      group.zero = from_fp16(zero);
      break;
    case Quantization::affine_integer:
      group.zero = -static_cast<float>(static_cast<std::int8_t>(zero)) * group.scale;  // exact
      break;
    case Quantization::symmetric:
      group.zero = -static_cast<float>(1 << (payload_bits(format.number) - 1)) * group.scale;
      break;
    case Quantization::none:
    case Quantization::floating:
      break;
  }
  return group;
}

/// The scale for a group whose finite elements lie in [least, most]. Scales of one byte are rounded
/// up, so that no element is cut off; those of two to nearest. `scale` is infinite where the format
/// cannot hold the group.
constexpr GroupScale fit_scale(const ElementFormat& format, float least, float most,
                               float tensor_scale) {
  least += 0.0f;  // no negative zeros, in any order of minima
  most += 0.0f;
  const float magnitude = std::max(-least, most) + 0.0f;
  const int bits = payload_bits(format.number);
  const auto levels = static_cast<float>((1 << bits) - 1);
  float wanted = 0;
  switch (quantization(format)) {
    case Quantization::none:
      return {};
    case Quantization::affine:
      wanted = (most - least) / levels;
      break;
    case Quantization::affine_integer:
      // The zero must be within 8 bits too.
      wanted = std::max((most - least) / levels, std::max(least, -least) / 127.0f);
      break;
    case Quantization::symmetric:
      wanted = magnitude / static_cast<float>((1 << (bits - 1)) - 1);
      break;
    case Quantization::floating:
      wanted = magnitude / (format.number == NumberFormat::fp8_e4m3 ? kLargestE4m3 : kLargestE2m1);
      break;
  }
  GroupScale group;
  std::uint16_t scale = 0, zero = 0;
  const float infinity = std::numeric_limits<float>::infinity();
  if (format.scale_bytes == 2) {
    scale = to_fp16(wanted);
  } else if (format.scale_bytes == 1 && format.number == NumberFormat::mxfp4) {
    // OCP Microscaling: the power of two of the largest element over that of the largest number.
    const int exponent = static_cast<int>(std::bit_cast<std::uint32_t>(magnitude) >> 23);
    scale = static_cast<std::uint16_t>(std::clamp(exponent - 2, 0, 254));
  } else if (format.scale_bytes == 1) {
    if (wanted > kLargestE4m3) return {0, 0, infinity, 0};
    scale = to_e4m3_upwards(wanted);
  }
  group = stored_scale(format, scale, 0, tensor_scale);
  if (quantization(format) == Quantization::affine) {
    zero = to_fp16(least);
    if ((zero & 0x7c00) == 0x7c00) group.scale = infinity;
  } else if (quantization(format) == Quantization::affine_integer && group.scale > 0) {
    // Rounded to an integer, ties to even, by what is added.
    const float limited = std::clamp(-least / group.scale, -127.0f, 127.0f) + 0x1.8p23f;
    zero = static_cast<std::uint8_t>(static_cast<std::int8_t>(limited - 0x1.8p23f));
  }
  if (!(group.scale > -infinity && group.scale < infinity)) return {0, 0, infinity, 0};
  return stored_scale(format, scale, zero, tensor_scale);
}

/// No element of a group in [least, most] decodes further than this from what it was. Of formats
/// without a stored scale: where no element exceeds 448 x `tensor_scale`.
inline double largest_error(const ElementFormat& format, float least, float most,
                            float tensor_scale) {
  constexpr double half_ulp = 0x1p-11, least_half_ulp = 0x1p-25;  // of FP16: relative, absolute
  const double magnitude = std::max(std::abs(double{least}), std::abs(double{most}));
  const double range = double{most} - least;
  const int bits = payload_bits(format.number);
  const double levels = (1 << bits) - 1;
  const double rounded = magnitude * half_ulp + least_half_ulp;
  // What a stored scale may be larger than the exact one, and, rounded to nearest, smaller.
  const auto enlarged = [&](double scale) {
    if (format.scale_bytes == 2) return scale * (1 + half_ulp) + least_half_ulp;
    return scale * 1.125 + 0x1p-9;
  };
  const auto cut_off = [&](double scale, double steps) {
    return format.scale_bytes == 2 ? steps * (scale * half_ulp + least_half_ulp) : 0;
  };
  double error = 0;
  switch (quantization(format)) {
    case Quantization::none:
      error = format.number == NumberFormat::bf16 ? magnitude * 0x1p-8 : rounded;
      break;
    case Quantization::affine:
      error = enlarged(range / levels) / 2 + cut_off(range / levels, levels) + rounded;
      break;
    case Quantization::affine_integer: {
      const double scale = std::max(range / levels, std::abs(double{least}) / 127);
      error = enlarged(scale) + cut_off(scale, levels);  // element and zero are both rounded
      break;
    }
    case Quantization::symmetric: {
      const double steps = (1 << (bits - 1)) - 1;
      error = enlarged(magnitude / steps) / 2 + cut_off(magnitude / steps, steps);
      break;
    }
    case Quantization::floating:
      if (format.number == NumberFormat::fp8_e4m3) {
        error = magnitude * 0x1p-4 + tensor_scale * 0x1p-10;
      } else if (format.number == NumberFormat::nvfp4) {
        error = enlarged(magnitude / 6);  // 4 and 6 are neighbours
      } else {
        error = magnitude / 2 + 0x1p-127;  // up to 8 units of the scale, and 6 is the most
      }
      break;
  }
  return error * (1 + 0x1p-20);  // of the arithmetic in binary32
}

/// Turns the elements of one group into codes and back.
class GroupCoder {
 public:
  GroupCoder(const ElementFormat& format, const GroupScale& group)
      : number_(format.number),
        scale_(group.scale),
        zero_(group.zero),
        inverse_(group.scale > 0 ? 1 / group.scale : 0) {
    const int bits = payload_bits(format.number);
    highest_ = static_cast<float>((1 << bits) - 1);
    switch (quantization(format)) {
      case Quantization::affine:
        subtracted_ = group.zero;
        break;
      case Quantization::affine_integer:
        added_ = static_cast<float>(static_cast<std::int8_t>(group.stored_zero));
        break;
      case Quantization::symmetric:
        added_ = static_cast<float>(1 << (bits - 1));
        lowest_ = 1;
        break;
      case Quantization::none:
      case Quantization::floating:
        break;
    }
  }

  std::uint32_t code(float value) const {
    const float scaled = (value - subtracted_) * inverse_;
    switch (number_) {
      case NumberFormat::fp8_e4m3:
        return to_e4m3(scaled);
      case NumberFormat::nvfp4:
      case NumberFormat::mxfp4:
        return to_e2m1(scaled);
      default:
        return static_cast<std::uint32_t>(
            std::clamp(std::nearbyint(scaled) + added_, lowest_, highest_));
    }
  }

  float value(std::uint32_t code) const { return level(code) * scale_ + zero_; }

 private:
  float level(std::uint32_t code) const {
    switch (number_) {
      case NumberFormat::fp8_e4m3:
        return from_e4m3(static_cast<std::uint8_t>(code));
      case NumberFormat::nvfp4:
      case NumberFormat::mxfp4:
        return from_e2m1(static_cast<std::uint8_t>(code));
      default:
        return static_cast<float>(code);
    }
  }

  NumberFormat number_;
  float scale_, zero_, inverse_;
  float subtracted_ = 0, added_ = 0, lowest_ = 0, highest_ = 0;
};

}  // namespace modalkv
