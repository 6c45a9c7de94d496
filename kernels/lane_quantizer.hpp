// The arithmetic of quantizer.hpp in lanes: a group a lane. Operation by operation the same, so the
// bits are; tests hold the two together.
#pragma once

#include "kernels/lanes.hpp"

namespace modalkv {
namespace {

// What is stored of each group, and what its elements are coded with.
struct FittedGroups {
  Words scale, zero;
  Floats subtracted, inverse, added;
  Words unfit;    // lanes whose group the format cannot hold
  Words limited;  // lanes where an end of the range lies beyond the codes, as scales are rounded
};

// A magnitude to a float of fewer bits, nearest, ties to even; not limited (number.hpp).
template <int mantissa_bits, int bias>
[[gnu::always_inline]] inline Words narrow_magnitude(Floats magnitude) {
  constexpr int drop = 23 - mantissa_bits;
  const Words bits = bits_of(magnitude);
  const Words normal = ((bits + ((1u << (drop - 1)) - 1) + (bits >> drop & 1u)) >> drop) -
                       (std::uint32_t{127 - bias} << mantissa_bits);
  // A sum whose last place is the unit of subnormal numbers.
  constexpr auto unit_at_end =
      std::bit_cast<float>(static_cast<std::uint32_t>(127 + 24 - bias - mantissa_bits) << 23);
  constexpr auto least_normal = std::bit_cast<float>(static_cast<std::uint32_t>(128 - bias) << 23);
  const Words subnormal =
      bits_of(magnitude + unit_at_end) - std::bit_cast<std::uint32_t>(unit_at_end);
  return select(is_less(magnitude, broadcast(least_normal)), subnormal, normal);
}

[[gnu::always_inline]] inline Words to_e4m3(Floats value) {
  const Words code = lesser(narrow_magnitude<3, 7>(absolute(value)), broadcast(0x7eu));
  return (bits_of(value) >> 24 & 0x80u) | code;
}

[[gnu::always_inline]] inline Words to_e2m1(Floats value) {
  const Words code = lesser(narrow_magnitude<1, 1>(absolute(value)), broadcast(7u));
  return (bits_of(value) >> 28 & 8u) | code;
}

// Of codes without a sign, below NaN.
[[gnu::always_inline]] inline Floats from_e4m3(Words code) {
  return floats_of(code << 20) * 0x1p120f;  // moves the exponent; subnormal codes come out exact
}

[[gnu::always_inline]] inline Floats from_fp16(Words code) {
  const Floats magnitude = floats_of((code & 0x7fffu) << 13) * 0x1p112f;
  return floats_of(bits_of(magnitude) | (code & 0x8000u) << 16);
}

// What is added to a float below 2^22 so that it is rounded to an integer, ties to even.
constexpr float kToInteger = 0x1.8p23f;

// fit_scale(), a group a lane.
class LaneQuantizer {
 public:
  LaneQuantizer(const ElementFormat& format, float tensor_scale)
      : format_(format), quantization_(quantization(format)), tensor_scale_(tensor_scale) {}

  FittedGroups fit(Floats least, Floats most) const {
    least = least + 0.0f;  // no negative zeros
    most = most + 0.0f;
    const Floats magnitude = Machine::greater(-least, most) + 0.0f;
    FittedGroups groups{};
    if (quantization_ == Quantization::none) {
      if (format_.number == NumberFormat::fp16)
        groups.unfit = is_less(broadcast(65519.996f), magnitude);
      return groups;
    }
    const Floats scale = store_scale(wanted(least, most, magnitude), magnitude, groups);
    groups.unfit |= is_less(broadcast(0x7f7fffffu), bits_of(absolute(scale)));
    const Words has_scale = is_less(broadcast(0.0f), scale);
    groups.inverse = select(has_scale, 1.0f / scale, Floats{});
    if (quantization_ == Quantization::affine) {
      groups.zero = Machine::to_fp16(least);
      groups.subtracted = from_fp16(groups.zero);
      groups.unfit |= is_less(broadcast(0x7bffu), groups.zero & 0x7fffu);
    } else if (quantization_ == Quantization::affine_integer) {
      const Floats zero =
          Machine::lesser(Machine::greater(-least / scale, broadcast(-127.0f)), broadcast(127.0f));
      groups.added = select(has_scale, (zero + kToInteger) - kToInteger, Floats{});
      groups.zero = bits_of(groups.added + kToInteger) & 0xffu;
    }
    groups.limited = beyond_codes(least, most, groups);
    return groups;
  }

 private:
  Floats wanted(Floats least, Floats most, Floats magnitude) const {
    const int bits = payload_bits(format_.number);
    const auto levels = static_cast<float>((1 << bits) - 1);
    switch (quantization_) {
      case Quantization::affine:
        return (most - least) / levels;
      case Quantization::affine_integer:
        return Machine::greater((most - least) / levels, absolute(least) / 127.0f);
      case Quantization::symmetric:
        return magnitude / static_cast<float>((1 << (bits - 1)) - 1);
      default:
        return magnitude / (format_.number == NumberFormat::fp8_e4m3 ? kLargestE4m3 : kLargestE2m1);
    }
  }

  // As stored, and what that means.
  Floats store_scale(Floats wanted, Floats magnitude, FittedGroups& groups) const {
    if (format_.scale_bytes == 2) {
      groups.scale = Machine::to_fp16(wanted);
      groups.unfit = is_less(broadcast(0x7bffu), groups.scale);
      return from_fp16(groups.scale);
    }
    if (format_.scale_bytes == 0) return broadcast(tensor_scale_);
    if (format_.number == NumberFormat::mxfp4) {
      const Words exponent = bits_of(magnitude) >> 23;
      groups.scale = select(is_less(exponent, broadcast(2u)), Words{}, exponent - 2u);
      return floats_of(
          select(is_less(groups.scale, broadcast(1u)), broadcast(0x00400000u), groups.scale << 23));
    }
    groups.unfit = is_less(broadcast(kLargestE4m3), wanted);
    const Words nearest = to_e4m3(wanted);
    const Words below = is_less(from_e4m3(nearest), wanted) & is_less(nearest, broadcast(0x7eu));
    groups.scale = nearest + (below & 1u);
    return from_e4m3(groups.scale);
  }

  // Coding is monotonic: what holds for the ends holds for all elements.
  Words beyond_codes(Floats least, Floats most, const FittedGroups& groups) const {
    const int bits = payload_bits(format_.number);
    const bool symmetric = quantization_ == Quantization::symmetric;
    const Floats shift = groups.added + (symmetric ? static_cast<float>(1 << (bits - 1)) : 0.0f);
    const Floats low = (least - groups.subtracted) * groups.inverse + shift;
    const Floats high = (most - groups.subtracted) * groups.inverse + shift;
    // A quarter from the ends, so that the additions above cannot mislead.
    const auto highest = static_cast<float>((1 << bits) - 1);
    return is_less(low, broadcast(symmetric ? 0.75f : -0.25f)) |
           is_less(broadcast(highest + 0.25f), high);
  }

  ElementFormat format_;
  Quantization quantization_;
  float tensor_scale_;
};

// Coders: elements of a format to codes. A code comes with kExcess added, which a word of codes
// loses in one subtraction.

// `limited`: elements may lie beyond the codes.
template <int bits, Quantization quantization, bool limited>
struct IntegerCoder {
  static constexpr int kBits = bits;
  // Rounding leaves the code at the end of a float, below this.
  static constexpr std::uint32_t kExcess = std::bit_cast<std::uint32_t>(kToInteger);

  [[gnu::always_inline]] static Words code(Floats value, Floats subtracted, Floats inverse,
                                           Floats added) {
    constexpr auto middle = static_cast<float>(1 << (bits - 1));
    if constexpr (quantization == Quantization::affine) {
      return bits_of(limit((value - subtracted) * inverse, Floats{}) + kToInteger);
    } else if constexpr (quantization == Quantization::symmetric) {
      // The middle is even: ties stay where they were.
      return bits_of(limit(value * inverse, broadcast(1 - middle)) + (kToInteger + middle));
    } else {
      return bits_of((limit(value * inverse, -added) + kToInteger) + added);
    }
  }

 private:
  // Before it is rounded: the limits are integers, so that comes to the same.
  [[gnu::always_inline]] static Floats limit(Floats scaled, Floats lowest) {
    constexpr int levels = (1 << bits) - (quantization == Quantization::symmetric ? 2 : 1);
    if constexpr (!limited) return scaled;
    return Machine::lesser(Machine::greater(scaled, lowest), lowest + static_cast<float>(levels));
  }
};

struct E4m3Coder {
  static constexpr int kBits = 8;
  static constexpr std::uint32_t kExcess = 0;
  [[gnu::always_inline]] static Words code(Floats value, Floats, Floats inverse, Floats) {
    return to_e4m3(value * inverse);
  }
};

struct E2m1Coder {
  static constexpr int kBits = 4;
  static constexpr std::uint32_t kExcess = 0;
  [[gnu::always_inline]] static Words code(Floats value, Floats, Floats inverse, Floats) {
    return to_e2m1(value * inverse);
  }
};

struct Fp16Coder {
  static constexpr int kBits = 16;
  static constexpr std::uint32_t kExcess = 0;
  [[gnu::always_inline]] static Words code(Floats value, Floats, Floats, Floats) {
    return Machine::to_fp16(value);
  }
};

struct Bf16Coder {
  static constexpr int kBits = 16;
  static constexpr std::uint32_t kExcess = 0;
  [[gnu::always_inline]] static Words code(Floats value, Floats, Floats, Floats) {
    return to_bf16(value);
  }
};

}  // namespace
}  // namespace modalkv
