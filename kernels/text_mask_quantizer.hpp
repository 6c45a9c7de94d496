// The reference mode of text-centric quantization, as the method was published: text tokens are
// kept as they are, the K and the V of all others are quantized per tensor, symmetrically. It is
// the measure of quality for the page formats, not a page format itself.
//
// Bit for bit what PyTorch computes on CPU tensors of the input's type, where each operation is
// done in binary32 and its result rounded to that type, to nearest, ties to even (2.15 is what the
// golden vectors were made with):
//
//   image = x[~text_token_mask]
//   scale = image.abs().max() / (2 ** (quant_bits - 1) - 1)
//   codes = torch.round(image / scale).to(torch.int8)
//   x[~text_token_mask] = codes.to(x.dtype) * scale
//
// An image set that is all zeros, or so small that its scale rounds to zero, has scale 0 and codes
// 0 and decodes to zeros. An empty one, for which PyTorch's max() throws, has scale 0 and no codes.
//
// Conversion to int8 keeps the low 8 bits of the integer, and of what is no 32-bit integer (a
// quotient by zero) 0. C++ and PyTorch leave both undefined; this is what PyTorch does on x86-64.
// Hence three properties of the published arithmetic that a reader might take for errors of ours:
//   - BF16 in 8 bits: where the largest magnitude's significand is about 1.33 to 1.49, the scale is
//     rounded down so far that the largest elements' code is 128, which wraps to -128: they decode
//     with the wrong sign. FP16, FP32 and fewer bits are not concerned.
//   - Where the scale is subnormal, codes are beyond 2^(bits - 1) - 1, and may wrap too.
//   - The largest numbers of a type may decode to infinity: the rounded scale times their code is
//     beyond it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "modalkv/error.hpp"
#include "modalkv/units.hpp"

namespace modalkv {

enum class TensorNumber : std::uint8_t { fp32, fp16, bf16 };

/// K or V of one layer, [tokens, width] with contiguous rows; width is kv_heads x head_dim.
struct TensorRows {
  const void* elements = nullptr;  ///< aligned as its numbers are
  TensorNumber number = TensorNumber::fp16;
  Tokens tokens = 0;
  std::int64_t width = 0;
  std::int64_t token_stride = 0;  ///< in elements, at least the width
};

/// `rejected`: an element (of text too) is not a finite number. The first one's tensor and token
/// are named, and the codes are undefined.
struct TextMaskResult {
  Status status = Status::ok;
  bool in_values = false;
  Tokens token = 0;
  float key_scale = 0, value_scale = 0;  ///< numbers of the tensors' types
};

/// Tokens that are not text: what the spans of codes must have rows for.
Tokens count_image_tokens(std::span<const bool> text_token_mask);

/// Quantizes the image tokens of K and of V. `text_token_mask` is true for text and has an entry
/// for each token of either tensor, `quant_bits` is in [2, 8]. The codes are [image tokens, width],
/// packed, in the order of their tokens. Allocates nothing.
TextMaskResult quantize_text_mask(const TensorRows& keys, const TensorRows& values,
                                  std::span<const bool> text_token_mask, int quant_bits,
                                  std::span<std::int8_t> key_codes,
                                  std::span<std::int8_t> value_codes);

/// K or V as attention sees it: text rows from `rows`, bit for bit, the others from their codes.
/// `to` holds [tokens, width] packed numbers of the rows' type, and may not overlap the rows.
/// Allocates nothing.
void restore_text_mask(const TensorRows& rows, std::span<const bool> text_token_mask,
                       std::span<const std::int8_t> codes, float scale, void* to);

}  // namespace modalkv
