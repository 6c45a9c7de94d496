// Number formats of the KV cache and their exact bytes.
//
// A KV format names the formats of K and of V independently. A vector is the K or the V of one
// token and one KV head: `head_dim` elements. Its bytes are payload plus metadata (scales, zero
// points).
#pragma once

#include <cstdint>
#include <string_view>

#include "modalkv/units.hpp"

namespace modalkv {

enum class NumberFormat : std::uint8_t { fp16, bf16, fp8_e4m3, int8, int4, int2, nvfp4, mxfp4 };

constexpr int payload_bits(NumberFormat number) {
  switch (number) {
    case NumberFormat::fp16:
    case NumberFormat::bf16:
      return 16;
    case NumberFormat::fp8_e4m3:
    case NumberFormat::int8:
      return 8;
    case NumberFormat::int4:
    case NumberFormat::nvfp4:
    case NumberFormat::mxfp4:
      return 4;
    case NumberFormat::int2:
      break;
  }
  return 2;
}

constexpr std::string_view name(NumberFormat number) {
  constexpr std::string_view names[] = {"fp16", "bf16", "fp8-e4m3", "int8",
                                        "int4", "int2", "nvfp4",    "mxfp4"};
  return names[static_cast<std::uint8_t>(number)];
}

/// How the K or the V of a page is stored.
///
/// Metadata is per group of `group` consecutive elements of a vector; `group == 0` is one group a
/// vector
/// ("token-head"). With `per_channel`, metadata is per channel of a closed page instead: it is
/// counted by the page (page.hpp), not by the token.
struct ElementFormat {
  NumberFormat number = NumberFormat::fp16;
  int group = 0;
  int scale_bytes = 0;  ///< 0: no scale stored per group (16-bit, or one scale per tensor)
  int zero_bytes = 0;   ///< 0: symmetric
  bool per_channel = false;

  friend constexpr bool operator==(const ElementFormat&, const ElementFormat&) = default;
};

constexpr ElementFormat fp16() {
  return {NumberFormat::fp16};
}
constexpr ElementFormat bf16() {
  return {NumberFormat::bf16};
}
/// One scale per tensor or head, held outside the page (FP8 as vLLM stores it).
constexpr ElementFormat fp8_e4m3() {
  return {NumberFormat::fp8_e4m3};
}
/// FP16 scale and zero point per token and head.
constexpr ElementFormat int8_token_head() {
  return {NumberFormat::int8, 0, 2, 2};
}
constexpr ElementFormat int4_token_head() {
  return {NumberFormat::int4, 0, 2, 2};
}
/// FP16 scale and zero point per `group` elements of a vector.
constexpr ElementFormat int4_grouped(int group) {
  return {NumberFormat::int4, group, 2, 2};
}
constexpr ElementFormat int2_grouped(int group) {
  return {NumberFormat::int2, group, 2, 2};
}
/// E2M1 with an E4M3 scale per 16 elements.
constexpr ElementFormat nvfp4() {
  return {NumberFormat::nvfp4, 16, 1, 0};
}
/// E2M1 with an E8M0 scale per 32 elements (OCP Microscaling).
constexpr ElementFormat mxfp4() {
  return {NumberFormat::mxfp4, 32, 1, 0};
}

struct KvFormat {
  ElementFormat key = fp16();
  ElementFormat value = fp16();
  /// Order of the block Hadamard that keys are rotated by before they are quantized, and queries
  /// alike, so that their products stay: a power of two from 16 to 128 that divides head_dim. 0:
  /// none, as with 16-bit keys.
  int key_rotation = 0;

  friend constexpr bool operator==(const KvFormat&, const KvFormat&) = default;
};

constexpr KvFormat both(ElementFormat element) {
  return {element, element};
}

/// True where the format stores every element in 16 bits, so that nothing is lost by it.
constexpr bool is_16bit(const KvFormat& format) {
  return payload_bits(format.key.number) == 16 && payload_bits(format.value.number) == 16;
}

/// Payload bytes of one vector of `head_dim` elements.
constexpr Bytes payload_bytes(const ElementFormat& format, int head_dim) {
  return divide_up(static_cast<Bytes>(head_dim) * payload_bits(format.number), 8);
}

/// Metadata bytes of one vector; 0 where metadata belongs to the page or to the tensor.
constexpr Bytes metadata_bytes(const ElementFormat& format, int head_dim) {
  if (format.per_channel) return 0;
  const int group = format.group == 0 ? head_dim : format.group;
  return divide_up(head_dim, group) * (format.scale_bytes + format.zero_bytes);
}

constexpr Bytes vector_bytes(const ElementFormat& format, int head_dim) {
  return payload_bytes(format, head_dim) + metadata_bytes(format, head_dim);
}

/// Bytes of K and V of one token and one KV head, metadata included.
constexpr Bytes token_head_bytes(const KvFormat& format, int head_dim) {
  return vector_bytes(format.key, head_dim) + vector_bytes(format.value, head_dim);
}

/// Stored bits per element, metadata included.
constexpr double bits_per_element(const KvFormat& format, int head_dim) {
  return 8.0 * static_cast<double>(token_head_bytes(format, head_dim)) / (2.0 * head_dim);
}

}  // namespace modalkv
