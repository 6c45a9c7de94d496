// The format of one side of a page as kernels see it: known when they are compiled, or not.
#pragma once

#include <cstdint>

#include "kernels/quantizer.hpp"
#include "modalkv/page.hpp"

// Loops over registers must be unrolled, and functions that take them inlined. Under emulation both
// would only take the compiler's time. Other loops are unrolled so far that loads overlap.
#ifdef __CUDACC__
#define MODALKV_UNROLL _Pragma("unroll")
#define MODALKV_UNROLL_SOME _Pragma("unroll 2")
#define MODALKV_INLINE __forceinline__
#else
#define MODALKV_UNROLL _Pragma("GCC unroll 1")
#define MODALKV_UNROLL_SOME _Pragma("GCC unroll 1")
#define MODALKV_INLINE inline
#endif

namespace modalkv {

/// A format of a kernel of its own.
template <ElementFormat element>
struct FixedFormat {
  static constexpr bool kFixed = true;
  static constexpr ElementFormat kElement = element;
  constexpr explicit FixedFormat(const ElementFormat&) {}
  constexpr ElementFormat get() const { return element; }
};

/// Whichever format the launch says.
struct AnyFormat {
  static constexpr bool kFixed = false;
  static constexpr ElementFormat kElement{};  // the most bits
  ElementFormat element;
  constexpr explicit AnyFormat(const ElementFormat& format) : element(format) {}
  constexpr ElementFormat get() const { return element; }
};

/// Whether the numbers of a format are dequantized as operands: E2M1 times E4M3 is exact in FP16.
template <class Format>
constexpr bool scales_operands() {
  return Format::kFixed && Format::kElement.number == NumberFormat::nvfp4;
}

/// Whether scales are stored for groups within a token's vector.
constexpr bool has_token_scales(const ElementFormat& format) {
  return format.scale_bytes > 0 && !format.per_channel;
}

/// Depth positions that a warp takes at a time: four words of a row, or fewer where a group ends.
template <class Format>
constexpr int depth_unit(int most) {
  if (!Format::kFixed) return 16;
  int unit = 4 * 32 / payload_bits(Format::kElement.number);
  if (unit < 16) unit = 16;
  while (unit > most) unit /= 2;
  const bool grouped = has_token_scales(Format::kElement) && Format::kElement.group > 0;
  while (grouped && !scales_operands<Format>() && unit > Format::kElement.group) unit /= 2;
  return unit;
}

/// Groups of `dims` channels that kernels scale one by one.
template <class Format>
constexpr int scaled_groups(int dims) {
  if (!Format::kFixed) return dims / 16;
  if (!has_token_scales(Format::kElement) || scales_operands<Format>()) return 1;
  const int group = Format::kElement.group == 0 ? dims : Format::kElement.group;
  return dims <= group ? 1 : dims / group;
}

/// Bytes of scales and zeros of 16 tokens of `dims` channels, at most.
template <class Format>
constexpr int most_metadata_bytes(int dims) {
  if (!Format::kFixed) return dims * 4;
  const ElementFormat& format = Format::kElement;
  return format.per_channel ? 0 : 16 * static_cast<int>(metadata_bytes(format, dims));
}

/// What levels of a code are centred by: value = (level - centre) * scale + zero.
constexpr int centre(const ElementFormat& format) {
  switch (format.number) {
    case NumberFormat::int8:
    case NumberFormat::int4:
    case NumberFormat::int2:
      return 1 << (payload_bits(format.number) - 1);
    default:
      return 0;
  }
}

/// Operands of these numbers are smaller than what they stand for by this.
constexpr float operand_factor(const ElementFormat& format) {
  switch (format.number) {
    case NumberFormat::fp8_e4m3:
      return 0x1p8f;
    case NumberFormat::nvfp4:
    case NumberFormat::mxfp4:
      return 0x1p14f;
    default:
      return 1;
  }
}
template <class Format>
constexpr float operand_factor_of(const Format& format) {
  return scales_operands<Format>() ? 0x1p8f : operand_factor(format.get());
}

}  // namespace modalkv
