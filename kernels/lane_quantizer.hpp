// The arithmetic of quantizer.hpp in lanes: sixteen groups are fitted at once, and elements become
// codes. Operation by operation the same, so the bits are; tests hold the two together.
#include "kernels/lanes.hpp"

namespace modalkv {
namespace {

struct Range {
  Floats least, most;
};

// Sixteen groups: what is stored of each, and what its elements are coded with.
struct FittedGroups {
  Words scale, zero;
  Floats subtracted, inverse, added;
  Words unfit;  // lanes whose group the format cannot hold
};

// A magnitude to a float of fewer bits, nearest, ties to even; not limited (number.hpp).
template <int mantissa_bits, int bias>
[[gnu::always_inline]] inline Words narrow_magnitude(const Floats& magnitude) {
  constexpr int drop = 23 - mantissa_bits;
  const Words bits = bits_of(magnitude);
  const Words odd = bits >> drop & broadcast(1u);
  const Words normal = ((bits + broadcast((1u << (drop - 1)) - 1) + odd) >> drop) -
                       broadcast(std::uint32_t{127 - bias} << mantissa_bits);
  // A sum whose last place is the unit of subnormal numbers.
  constexpr auto unit_at_end =
      std::bit_cast<float>(static_cast<std::uint32_t>(127 + 24 - bias - mantissa_bits) << 23);
  constexpr auto least_normal = std::bit_cast<float>(static_cast<std::uint32_t>(128 - bias) << 23);
  const Words subnormal =
      bits_of(magnitude + broadcast(unit_at_end)) - bits_of(broadcast(unit_at_end));
  return select(is_less(magnitude, broadcast(least_normal)), subnormal, normal);
}

[[gnu::always_inline]] inline Words to_e4m3(const Floats& value) {
  const Words code = lesser(narrow_magnitude<3, 7>(absolute(value)), broadcast(0x7eu));
  return (bits_of(value) >> 24 & broadcast(0x80u)) | code;
}

[[gnu::always_inline]] inline Words to_e2m1(const Floats& value) {
  const Words code = lesser(narrow_magnitude<1, 1>(absolute(value)), broadcast(7u));
  return (bits_of(value) >> 28 & broadcast(8u)) | code;
}

// Of codes without a sign, below NaN.
[[gnu::always_inline]] inline Floats from_e4m3(const Words& code) {
  return floats_of(code << 20) * 0x1p120f;  // moves the exponent; subnormal codes come out exact
}

[[gnu::always_inline]] inline Floats from_fp16(const Words& code) {
  const Words magnitude = (code & broadcast(0x7fffu)) << 13;
  const Words sign = (code & broadcast(0x8000u)) << 16;
  return floats_of(bits_of(floats_of(magnitude) * 0x1p112f) | sign);
}

// What is added to a float below 2^22 so that it is rounded to an integer, ties to even.
constexpr float kToInteger = 0x1.8p23f;

[[gnu::always_inline]] inline Floats round(const Floats& a) {
  return (a + broadcast(kToInteger)) - broadcast(kToInteger);
}

// fit_scale() of sixteen groups.
class LaneQuantizer {
 public:
  LaneQuantizer(const ElementFormat& format, float tensor_scale)
      : format_(format), quantization_(quantization(format)), tensor_scale_(tensor_scale) {}

  FittedGroups fit(const Range& range) const {
    const Floats nothing = broadcast(0.0f);
    const Floats least = range.least + nothing;  // no negative zero
    const Floats magnitude = greater(nothing - least, range.most) + nothing;
    FittedGroups groups{};
    if (quantization_ == Quantization::none) {
      if (format_.number == NumberFormat::fp16)
        groups.unfit = is_less(broadcast(65519.996f), magnitude);
      return groups;
    }
    const Floats scale = store_scale(wanted(least, range.most, magnitude), magnitude, groups);
    groups.unfit = groups.unfit | not_finite(scale);
    const Words has_scale = is_less(nothing, scale);
    groups.inverse = select(has_scale, broadcast(1.0f) / scale, nothing);
    if (quantization_ == Quantization::affine) {
      groups.zero = to_fp16(least);
      groups.subtracted = from_fp16(groups.zero);
      groups.unfit = groups.unfit | is_less(broadcast(0x7bffu), groups.zero & broadcast(0x7fffu));
    } else if (quantization_ == Quantization::affine_integer) {
      const Floats zero =
          round(lesser(greater((nothing - least) / scale, broadcast(-127.0f)), broadcast(127.0f)));
      groups.added = select(has_scale, zero, nothing);
      groups.zero = bits_of(groups.added + broadcast(kToInteger)) & broadcast(0xffu);
    }
    return groups;
  }

 private:
  Floats wanted(const Floats& least, const Floats& most, const Floats& magnitude) const {
    const int bits = payload_bits(format_.number);
    const Floats levels = broadcast(static_cast<float>((1 << bits) - 1));
    switch (quantization_) {
      case Quantization::affine:
        return (most - least) / levels;
      case Quantization::affine_integer:
        return greater((most - least) / levels, absolute(least) / broadcast(127.0f));
      case Quantization::symmetric:
        return magnitude / broadcast(static_cast<float>((1 << (bits - 1)) - 1));
      default:
        return magnitude /
               broadcast(format_.number == NumberFormat::fp8_e4m3 ? kLargestE4m3 : kLargestE2m1);
    }
  }

  // As stored, and what that means.
  Floats store_scale(const Floats& wanted, const Floats& magnitude, FittedGroups& groups) const {
    if (format_.scale_bytes == 2) {
      groups.scale = to_fp16(wanted);
      groups.unfit = is_less(broadcast(0x7bffu), groups.scale);
      return from_fp16(groups.scale);
    }
    if (format_.scale_bytes == 0) return broadcast(tensor_scale_);
    if (format_.number == NumberFormat::mxfp4) {
      const Words exponent = bits_of(magnitude) >> 23;
      groups.scale =
          select(is_less(exponent, broadcast(2u)), broadcast(0u), exponent - broadcast(2u));
      return floats_of(
          select(is_less(groups.scale, broadcast(1u)), broadcast(0x00400000u), groups.scale << 23));
    }
    groups.unfit = is_less(broadcast(kLargestE4m3), wanted);
    const Words nearest = to_e4m3(wanted);
    const Words below = is_less(from_e4m3(nearest), wanted) & is_less(nearest, broadcast(0x7eu));
    groups.scale = nearest + (below & broadcast(1u));
    return from_e4m3(groups.scale);
  }

  static Words not_finite(const Floats& a) {
    return is_less(broadcast(0x7f7fffffu), bits_of(a) & broadcast(0x7fffffffu));
  }

  ElementFormat format_;
  Quantization quantization_;
  float tensor_scale_;
};

// Coders: elements of a format to codes. A code comes with kExcess added, which a word of codes
// loses in one subtraction.

template <int bits, Quantization quantization>
struct IntegerCoder {
  static constexpr int kBits = bits;
  // Rounding leaves the code at the end of a float, below this.
  static constexpr std::uint32_t kExcess = std::bit_cast<std::uint32_t>(kToInteger);

  [[gnu::always_inline]] static Words code(const Floats& value, const Floats& subtracted,
                                           const Floats& inverse, const Floats& added) {
    constexpr auto levels = static_cast<float>((1 << bits) - 1);
    constexpr auto middle = static_cast<float>(1 << (bits - 1));
    // Limited before it is rounded: the limits are integers, so that comes to the same.
    if constexpr (quantization == Quantization::affine) {
      const Floats scaled = limit((value - subtracted) * inverse, broadcast(0.0f), levels);
      return bits_of(scaled + broadcast(kToInteger));
    } else if constexpr (quantization == Quantization::symmetric) {
      const Floats scaled = limit(value * inverse, broadcast(1 - middle), middle - 1);
      return bits_of(scaled + broadcast(kToInteger + middle));  // even: ties stay where they were
    } else {
      const Floats lowest = broadcast(0.0f) - added;
      const Floats scaled = lesser(greater(value * inverse, lowest), lowest + broadcast(levels));
      return bits_of((scaled + broadcast(kToInteger)) + added);
    }
  }

 private:
  [[gnu::always_inline]] static Floats limit(const Floats& a, const Floats& lowest, float highest) {
    return lesser(greater(a, lowest), broadcast(highest));
  }
};

struct E4m3Coder {
  static constexpr int kBits = 8;
  static constexpr std::uint32_t kExcess = 0;
  [[gnu::always_inline]] static Words code(const Floats& value, const Floats&,
                                           const Floats& inverse, const Floats&) {
    return to_e4m3(value * inverse);
  }
};

struct E2m1Coder {
  static constexpr int kBits = 4;
  static constexpr std::uint32_t kExcess = 0;
  [[gnu::always_inline]] static Words code(const Floats& value, const Floats&,
                                           const Floats& inverse, const Floats&) {
    return to_e2m1(value * inverse);
  }
};

struct Fp16Coder {
  static constexpr int kBits = 16;
  static constexpr std::uint32_t kExcess = 0;
  [[gnu::always_inline]] static Words code(const Floats& value, const Floats&, const Floats&,
                                           const Floats&) {
    return to_fp16(value);
  }
};

struct Bf16Coder {
  static constexpr int kBits = 16;
  static constexpr std::uint32_t kExcess = 0;
  [[gnu::always_inline]] static Words code(const Floats& value, const Floats&, const Floats&,
                                           const Floats&) {
    return to_bf16(value);
  }
};

}  // namespace
}  // namespace modalkv
