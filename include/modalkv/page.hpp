// Bytes of a page: the KV of a fixed number of tokens of one layer, all KV heads, K then V; payload
// and metadata and a trailer contiguous, the same bytes in every tier, so a copy needs no
// conversion.
#pragma once

#include "modalkv/format.hpp"
#include "modalkv/units.hpp"

namespace modalkv {

/// Content id (32), generation (8), checksum (8), tokens in use and flags (16).
inline constexpr Bytes kPageTrailerBytes = 64;
inline constexpr Bytes kPageAlignmentBytes = 64;
/// Of a 16-bit page, what vLLM and FlashInfer use; the planner groups pages to the link's liking.
inline constexpr Tokens kPageTokens = 16;
inline constexpr int kMaxHeadDim = 256;

struct PageShape {
  Tokens tokens = kPageTokens;
  int kv_heads = 1;
  int head_dim = 128;
  KvFormat format{};

  friend constexpr bool operator==(const PageShape&, const PageShape&) = default;
};

/// Whether an element format can be stored: integers have a scale, 16-bit numbers nothing beside
/// them; groups are of whole tiles.
constexpr bool is_storable(const ElementFormat& format) {
  const auto few = [](int bytes) { return bytes >= 0 && bytes <= 2; };
  if (!few(format.scale_bytes) || !few(format.zero_bytes) || format.group < 0 ||
      format.group % 16 != 0)
    return false;
  switch (format.number) {
    case NumberFormat::fp16:
    case NumberFormat::bf16:
      return format.scale_bytes == 0 && format.zero_bytes == 0 && !format.per_channel;
    case NumberFormat::int8:
    case NumberFormat::int4:
    case NumberFormat::int2:
      return format.scale_bytes > 0;
    case NumberFormat::fp8_e4m3:
      return format.zero_bytes == 0;
    case NumberFormat::nvfp4:
    case NumberFormat::mxfp4:
      return format.scale_bytes == 1 && format.zero_bytes == 0;
  }
  return false;
}

/// Whether keys of `head_dim` elements can be rotated so.
constexpr bool is_rotatable(const KvFormat& format, int head_dim) {
  const int order = format.key_rotation;
  if (order == 0) return true;
  return order >= 16 && order <= 128 && (order & (order - 1)) == 0 && head_dim % order == 0 &&
         payload_bits(format.key.number) < 16;
}

/// Whether there are pages of this shape: whole tiles of 16 tokens and 16 channels.
constexpr bool is_page(const PageShape& shape) {
  return shape.tokens >= 16 && shape.tokens <= 4096 && shape.tokens % 16 == 0 &&
         shape.kv_heads >= 1 && shape.kv_heads <= 1024 && shape.head_dim >= 16 &&
         shape.head_dim <= kMaxHeadDim && shape.head_dim % 16 == 0 &&
         is_storable(shape.format.key) && is_storable(shape.format.value) &&
         is_rotatable(shape.format, shape.head_dim);
}

/// Per-channel metadata of K or V of a whole page.
constexpr Bytes page_metadata_bytes(const ElementFormat& format, const PageShape& shape) {
  if (!format.per_channel)
    return shape.tokens * shape.kv_heads * metadata_bytes(format, shape.head_dim);
  const Tokens group = format.group == 0 ? shape.tokens : format.group;
  return divide_up(shape.tokens, group) * shape.kv_heads * shape.head_dim *
         (format.scale_bytes + format.zero_bytes);
}

constexpr Bytes page_payload_bytes(const ElementFormat& format, const PageShape& shape) {
  return shape.tokens * shape.kv_heads * payload_bytes(format, shape.head_dim);
}

/// Whole page: payload and metadata of K and V, trailer, rounded up to the alignment.
constexpr Bytes page_bytes(const PageShape& shape) {
  const auto side = [&](const ElementFormat& format) {
    return page_payload_bytes(format, shape) + page_metadata_bytes(format, shape);
  };
  return round_up(side(shape.format.key) + side(shape.format.value) + kPageTrailerBytes,
                  kPageAlignmentBytes);
}

}  // namespace modalkv
