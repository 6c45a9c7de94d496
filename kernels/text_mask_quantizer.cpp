#include "kernels/text_mask_quantizer.hpp"

#include <algorithm>
#include <cmath>

#include "kernels/number.hpp"

namespace modalkv {
namespace {

struct Fp32 {
  using Stored = float;
  static float widen(Stored stored) { return stored; }
  static Stored narrow(float value) { return value; }
};
struct Fp16 {
  using Stored = std::uint16_t;
  static float widen(Stored stored) { return from_fp16(stored); }
  static Stored narrow(float value) { return to_fp16(value); }
};
struct Bf16 {
  using Stored = std::uint16_t;
  static float widen(Stored stored) { return from_bf16(stored); }
  static Stored narrow(float value) { return to_bf16(value); }
};

template <typename Function>
auto with_number(TensorNumber number, Function function) {
  switch (number) {
    case TensorNumber::fp32:
      return function(Fp32{});
    case TensorNumber::fp16:
      return function(Fp16{});
    case TensorNumber::bf16:
      break;
  }
  return function(Bf16{});
}

// The result of an operation in binary32, rounded to a number of the tensor.
template <typename Number>
float rounded(float value) {
  return Number::widen(Number::narrow(value));
}

template <typename Number>
const typename Number::Stored* row(const TensorRows& rows, Tokens token) {
  return static_cast<const typename Number::Stored*>(rows.elements) + token * rows.token_stride;
}

// The first token with an element that is not finite, or -1.
Tokens first_bad_token(const TensorRows& rows) {
  return with_number(rows.number, [&]<typename Number>(Number) -> Tokens {
    for (Tokens token = 0; token < rows.tokens; ++token)
      for (std::int64_t i = 0; i < rows.width; ++i)
        if (!std::isfinite(Number::widen(row<Number>(rows, token)[i]))) return token;
    return -1;
  });
}

template <typename Number, typename Function>
void for_each_image_element(const TensorRows& rows, std::span<const bool> text, Function function) {
  for (Tokens token = 0; token < rows.tokens; ++token)
    if (!text[static_cast<std::size_t>(token)])
      for (std::int64_t i = 0; i < rows.width; ++i)
        function(Number::widen(row<Number>(rows, token)[i]));
}

// Also of infinities and NaNs, which division by a scale of zero gives.
std::int8_t to_code(float quotient) {
  const float level = std::nearbyint(quotient);
  if (!(std::abs(level) < 0x1p31f)) return 0;
  return static_cast<std::int8_t>(static_cast<std::int32_t>(level));
}

// Returns the scale.
float quantize(const TensorRows& rows, std::span<const bool> text, int bits,
               std::span<std::int8_t> codes) {
  return with_number(rows.number, [&]<typename Number>(Number) {
    float largest = 0;
    for_each_image_element<Number>(
        rows, text, [&](float value) { largest = std::max(largest, std::abs(value)); });
    const auto steps = static_cast<float>((1 << (bits - 1)) - 1);
    const float scale = rounded<Number>(largest / steps);
    std::int8_t* code = codes.data();
    for_each_image_element<Number>(
        rows, text, [&](float value) { *code++ = to_code(rounded<Number>(value / scale)); });
    return scale;
  });
}

}  // namespace

Tokens count_image_tokens(std::span<const bool> text_token_mask) {
  return std::count(text_token_mask.begin(), text_token_mask.end(), false);
}

TextMaskResult quantize_text_mask(const TensorRows& keys, const TensorRows& values,
                                  std::span<const bool> text_token_mask, int quant_bits,
                                  std::span<std::int8_t> key_codes,
                                  std::span<std::int8_t> value_codes) {
  for (const bool in_values : {false, true})
    if (const Tokens token = first_bad_token(in_values ? values : keys); token >= 0)
      return {Status::rejected, in_values, token};
  TextMaskResult result;
  result.key_scale = quantize(keys, text_token_mask, quant_bits, key_codes);
  result.value_scale = quantize(values, text_token_mask, quant_bits, value_codes);
  return result;
}

void restore_text_mask(const TensorRows& rows, std::span<const bool> text_token_mask,
                       std::span<const std::int8_t> codes, float scale, void* to) {
  with_number(rows.number, [&]<typename Number>(Number) {
    auto* restored = static_cast<typename Number::Stored*>(to);
    const std::int8_t* code = codes.data();
    for (Tokens token = 0; token < rows.tokens; ++token, restored += rows.width) {
      if (text_token_mask[static_cast<std::size_t>(token)]) {
        std::copy_n(row<Number>(rows, token), rows.width, restored);
        continue;
      }
      for (std::int64_t i = 0; i < rows.width; ++i)
        restored[i] = Number::narrow(static_cast<float>(*code++) * scale);
    }
  });
}

}  // namespace modalkv
