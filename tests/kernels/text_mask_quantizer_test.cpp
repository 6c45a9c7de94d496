// Against what PyTorch made of the same bits (golden/make_text_mask_golden.py).
#include "kernels/text_mask_quantizer.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <fstream>
#include <limits>
#include <memory>
#include <optional>
#include <sstream>
#include <string>
#include <vector>

#include "kernels/number.hpp"

namespace modalkv {
namespace {

using Bits = std::vector<std::uint32_t>;  // of elements, whatever their type

TensorNumber number_of(const std::string& type) {
  if (type == "fp32") return TensorNumber::fp32;
  return type == "fp16" ? TensorNumber::fp16 : TensorNumber::bf16;
}

float meaning(TensorNumber number, std::uint32_t bits) {
  if (number == TensorNumber::fp32) return std::bit_cast<float>(bits);
  const auto half = static_cast<std::uint16_t>(bits);
  return number == TensorNumber::fp16 ? from_fp16(half) : from_bf16(half);
}

std::size_t bytes_of(TensorNumber number) {
  return number == TensorNumber::fp32 ? 4 : 2;
}

std::vector<std::byte> packed(TensorNumber number, const Bits& bits) {
  std::vector<std::byte> bytes;
  for (const std::uint32_t word : bits)
    for (std::size_t i = 0; i < bytes_of(number); ++i)
      bytes.push_back(static_cast<std::byte>(word >> (8 * i)));
  return bytes;
}

// A tensor whose rows lie `gap` elements further apart than they need.
class Tensor {
 public:
  Tensor(TensorNumber number, const Bits& bits, Tokens tokens, std::int64_t width, Tokens gap = 0)
      : number_(number), tokens_(tokens), width_(width), gap_(gap) {
    Bits spread;
    for (Tokens token = 0; token < tokens; ++token) {
      const auto row = bits.begin() + token * width;
      spread.insert(spread.end(), row, row + width);
      spread.insert(spread.end(), static_cast<std::size_t>(gap), 0xffff'ffff);  // NaN in any type
    }
    const std::vector<std::byte> bytes = packed(number, spread);
    memory_.resize(bytes.size() / 4 + 1);
    std::copy(bytes.begin(), bytes.end(), std::as_writable_bytes(std::span(memory_)).begin());
  }

  TensorRows rows() const { return {memory_.data(), number_, tokens_, width_, width_ + gap_}; }

 private:
  TensorNumber number_;
  Tokens tokens_;
  std::int64_t width_, gap_;
  std::vector<std::uint32_t> memory_;
};

// std::vector<bool> is no span.
class Mask {
 public:
  explicit Mask(const std::string& digits)
      : text_(std::make_unique<bool[]>(digits.size() + 1)), tokens_(digits.size()) {
    for (std::size_t i = 0; i < tokens_; ++i) text_[i] = digits[i] == '1';
  }
  std::span<const bool> span() const { return {text_.get(), tokens_}; }

 private:
  std::unique_ptr<bool[]> text_;
  std::size_t tokens_;
};

struct Result {
  TextMaskResult result;
  std::vector<std::int8_t> key_codes, value_codes;
  std::vector<std::byte> keys, values;  // restored
};

Result run(const Tensor& keys, const Tensor& values, const Mask& mask, int bits) {
  const TensorRows rows = keys.rows();
  const auto codes = static_cast<std::size_t>(count_image_tokens(mask.span()) * rows.width);
  const auto elements = static_cast<std::size_t>(rows.tokens * rows.width);
  Result made{{}, std::vector<std::int8_t>(codes), std::vector<std::int8_t>(codes), {}, {}};
  made.result = quantize_text_mask(keys.rows(), values.rows(), mask.span(), bits, made.key_codes,
                                   made.value_codes);
  if (made.result.status != Status::ok) return made;
  made.keys.resize(elements * bytes_of(rows.number));
  made.values.resize(made.keys.size());
  restore_text_mask(keys.rows(), mask.span(), made.key_codes, made.result.key_scale,
                    made.keys.data());
  restore_text_mask(values.rows(), mask.span(), made.value_codes, made.result.value_scale,
                    made.values.data());
  return made;
}

// The golden file, line by line; its words are of one kind each.
class Golden {
 public:
  Golden() : file_(MODALKV_SOURCE_DIR "/tests/kernels/golden/text_mask_golden.txt") {}

  // The next line's first word, unless the file has ended.
  std::optional<std::string> next() {
    std::string text;
    do {
      if (!std::getline(file_, text)) return std::nullopt;
    } while (text.starts_with('#'));
    line_.clear();
    line_.str(text);
    return word();
  }
  std::string word() {
    std::string text;
    line_ >> text;
    return text;
  }
  int decimal() { return std::stoi(word()); }
  Bits elements() {
    Bits all;
    for (std::string text = word(); !text.empty(); text = word())
      all.push_back(static_cast<std::uint32_t>(std::stoul(text, nullptr, 16)));
    return all;
  }
  Bits elements_of(const std::string& name) {
    EXPECT_EQ(next(), name);
    return elements();
  }
  std::vector<std::int8_t> codes_of(const std::string& name) {
    EXPECT_EQ(next(), name);
    std::vector<std::int8_t> all;
    for (std::string text = word(); !text.empty(); text = word())
      all.push_back(static_cast<std::int8_t>(std::stoi(text)));
    return all;
  }

 private:
  std::ifstream file_;
  std::istringstream line_;
};

TEST(TextMaskQuantizer, ScalesCodesAndRestoredBitsAreThoseOfPyTorch) {
  Golden golden;
  std::string input, digits;
  TensorNumber number{};
  Tokens tokens = 0;
  std::int64_t width = 0;
  Bits keys, values;
  int outputs = 0;
  for (auto kind = golden.next(); kind && *kind != "sweep"; kind = golden.next()) {
    if (*kind == "input") {
      const std::string type = golden.word();
      number = number_of(type);
      input = type + " " + golden.word();
      tokens = golden.decimal();
      width = golden.decimal();
      digits = golden.word();
      keys = golden.elements_of("keys");
      values = golden.elements_of("values");
      continue;
    }
    ASSERT_EQ(*kind, "output");
    const int bits = golden.decimal();
    SCOPED_TRACE(input + ", bits " + std::to_string(bits));
    ASSERT_EQ(golden.next(), "scales");
    const std::string key_scale = golden.word(), value_scale = golden.word();
    const auto key_codes = golden.codes_of("key_codes"),
               value_codes = golden.codes_of("value_codes");
    const Bits restored_keys = golden.elements_of("keys");
    const Bits restored_values = golden.elements_of("values");
    for (const Tokens gap : {0, 3}) {
      const Result found = run(Tensor(number, keys, tokens, width, gap),
                               Tensor(number, values, tokens, width, gap), Mask(digits), bits);
      ASSERT_EQ(found.result.status, Status::ok);
      const auto same_scale = [&](float scale, const std::string& expected) {
        return expected == "-" ? scale == 0
                               : scale == meaning(number, static_cast<std::uint32_t>(
                                                              std::stoul(expected, nullptr, 16)));
      };
      ASSERT_TRUE(same_scale(found.result.key_scale, key_scale));
      ASSERT_TRUE(same_scale(found.result.value_scale, value_scale));
      ASSERT_EQ(found.key_codes, key_codes);
      ASSERT_EQ(found.value_codes, value_codes);
      ASSERT_EQ(found.keys, packed(number, restored_keys));
      ASSERT_EQ(found.values, packed(number, restored_values));
    }
    ++outputs;
  }
  EXPECT_EQ(outputs, 3 * 18 * 4) << "types, inputs and numbers of bits of the golden file";
}

// Every number of a type at once, by a hash.
TEST(TextMaskQuantizer, EverySixteenBitNumberIsAsInPyTorch) {
  Golden golden;
  int sweeps = 0;
  for (auto kind = golden.next(); kind; kind = golden.next()) {
    if (*kind != "sweep") continue;
    const TensorNumber number = number_of(golden.word());
    const int bits = golden.decimal();
    const std::string limit = golden.word(), scale = golden.word(), hash = golden.word();
    SCOPED_TRACE("sweep of " + limit + ", bits " + std::to_string(bits));
    const float largest =
        meaning(number, static_cast<std::uint32_t>(std::stoul(limit, nullptr, 16)));
    Bits every;
    for (std::uint32_t word = 0; word < 65536; ++word)
      if (std::abs(meaning(number, word)) <= largest) every.push_back(word);
    const auto tokens = static_cast<Tokens>(every.size());
    const Tensor tensor(number, every, tokens, 1);
    const Result found = run(tensor, tensor, Mask(std::string(every.size(), '0')), bits);
    ASSERT_EQ(found.result.key_scale,
              meaning(number, static_cast<std::uint32_t>(std::stoul(scale, nullptr, 16))));
    std::uint64_t sum = 0xcbf29ce484222325;
    const auto add = [&](std::uint8_t byte) { sum = (sum ^ byte) * 0x100000001b3; };
    for (const std::int8_t code : found.key_codes) add(static_cast<std::uint8_t>(code));
    for (const std::byte byte : found.keys) add(std::to_integer<std::uint8_t>(byte));
    ASSERT_EQ(sum, std::stoull(hash, nullptr, 16));
    ++sweeps;
  }
  EXPECT_EQ(sweeps, 35);
}

TEST(TextMaskQuantizer, WithoutImageTokensThereAreNoCodesAndAllIsKept) {
  const Bits bits{0x3c00, 0xbc00, 0x7bff, 1};
  const Tensor tensor(TensorNumber::fp16, bits, 2, 2);
  const Result found = run(tensor, tensor, Mask("11"), 4);
  EXPECT_EQ(found.result.key_scale, 0);
  EXPECT_TRUE(found.key_codes.empty());
  EXPECT_EQ(found.keys, packed(TensorNumber::fp16, bits));
  const Tensor nothing(TensorNumber::fp16, {}, 0, 2);
  EXPECT_EQ(run(nothing, nothing, Mask(""), 4).result.status, Status::ok);
}

TEST(TextMaskQuantizer, ZerosHaveScaleZeroAndDecodeToZeros) {
  const Bits text_and_zeros{0x3f80'0000, 0x4000'0000, 0, 0x8000'0000};
  const Tensor tensor(TensorNumber::fp32, text_and_zeros, 2, 2);
  const Result found = run(tensor, tensor, Mask("10"), 8);
  EXPECT_EQ(found.result.key_scale, 0);
  EXPECT_EQ(found.key_codes, (std::vector<std::int8_t>{0, 0}));
  EXPECT_EQ(found.keys, packed(TensorNumber::fp32, {0x3f80'0000, 0x4000'0000, 0, 0}));
}

TEST(TextMaskQuantizer, NamesTheTensorAndTheTokenThatIsNotANumber) {
  struct Case {
    TensorNumber number;
    std::uint32_t bad;
  };
  for (const auto& [number, bad] :
       {Case{TensorNumber::fp32, 0x7f80'0000}, Case{TensorNumber::fp32, 0x7fc0'0000},
        Case{TensorNumber::fp16, 0xfc00}, Case{TensorNumber::fp16, 0x7c01},
        Case{TensorNumber::bf16, 0xff80}, Case{TensorNumber::bf16, 0x7fc0}})
    for (const bool in_values : {false, true})
      for (const Tokens token : {0, 2, 4}) {
        const Bits good(15, number == TensorNumber::fp32 ? 0x3f80'0000u : 0x3c00u);
        Bits with_bad = good;
        with_bad[static_cast<std::size_t>(3 * token + 1)] = bad;
        const Tensor fine(number, good, 5, 3, 2), broken(number, with_bad, 5, 3, 2);
        // Token 2 is text: it would be kept, and is to be named all the same.
        const Result found =
            run(in_values ? fine : broken, in_values ? broken : fine, Mask("00100"), 4);
        EXPECT_EQ(found.result.status, Status::rejected);
        EXPECT_EQ(found.result.in_values, in_values);
        EXPECT_EQ(found.result.token, token);
      }
}

}  // namespace
}  // namespace modalkv
