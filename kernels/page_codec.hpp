// K and V become the bytes of a page, and back: the definition that every faster encoder is held
// to, byte for byte.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "kernels/key_bias.hpp"
#include "kernels/page_layout.hpp"
#include "modalkv/error.hpp"
#include "modalkv/token.hpp"

namespace modalkv {

/// 16-bit elements [tokens, kv_heads, head_dim] of an engine; head_dim is contiguous.
struct Rows {
  const std::uint16_t* elements = nullptr;
  std::int64_t token_stride = 0, head_stride = 0;  ///< in elements
  NumberFormat number = NumberFormat::fp16;        ///< fp16 or bf16
};

/// The same, written to.
struct MutableRows {
  std::uint16_t* elements = nullptr;
  std::int64_t token_stride = 0, head_stride = 0;
  NumberFormat number = NumberFormat::fp16;
};

/// What a page says about itself.
struct PageTrailer {
  ContentId content{};
  std::uint64_t generation = 0;
  std::uint32_t tokens = 0;  ///< in use
};

/// Of tensors whose scale is held outside the page (formats without a stored scale).
struct TensorScales {
  float key = 1, value = 1;
};

/// `rejected`: an element is not a finite number, or the format cannot hold its group; the first
/// such element or group is named and the page's bytes are undefined.
struct EncodeResult {
  Status status = Status::ok;
  bool in_values = false;
  int head = 0;
  Tokens token = 0;
};

/// A bias that is known of all keys, and where the tokens of a page stand: [tokens, axes].
struct KnownBias {
  const KeyBias* bias = nullptr;  ///< nullptr: none
  std::span<const std::int32_t> positions{};
};

/// Encodes tokens [0, trailer.tokens) (1 to shape.tokens) and fills the rest of the page with
/// zeros, its checksum included. Keys of fewer than 16 bits lose the known bias, then are rotated
/// as the format says, then quantized. `page` has page_bytes(shape) bytes. Allocates nothing.
EncodeResult encode_page(const PageShape& shape, const Rows& keys, const Rows& values,
                         const PageTrailer& trailer, const TensorScales& scales,
                         std::span<std::byte> page, const KnownBias& known = {});

/// The decoded elements of one side as binary32, [tokens in use, kv_heads, head_dim]; keys rotated
/// back and with their bias.
void decode_keys(const PageShape& shape, std::span<const std::byte> page,
                 const TensorScales& scales, std::span<float> to, const KnownBias& known = {});
void decode_values(const PageShape& shape, std::span<const std::byte> page,
                   const TensorScales& scales, std::span<float> to);

/// The same, rounded to the nearest 16-bit numbers, ties to even, into the rows of an engine; what
/// is beyond FP16 becomes infinite there.
void decode_keys(const PageShape& shape, std::span<const std::byte> page,
                 const TensorScales& scales, const MutableRows& to, const KnownBias& known = {});
void decode_values(const PageShape& shape, std::span<const std::byte> page,
                   const TensorScales& scales, const MutableRows& to);

/// The trailer, with the checksum of the page as it is.
void write_trailer(const PageShape& shape, const PageTrailer& trailer, std::span<std::byte> page);
PageTrailer read_trailer(std::span<const std::byte> page);
/// Status::checksum where the page is not what was encoded.
Status verify_page(std::span<const std::byte> page);

}  // namespace modalkv
