// Two readers of a page that share nothing but the text they were written from.
#include "tests/kernels/reference_page.hpp"

#include <gtest/gtest.h>

#include <bit>

#include "tests/kernels/formats.hpp"
#include "tests/kernels/made_pages.hpp"

namespace modalkv {
namespace {

void expect_same_bits(const std::vector<float>& found, const std::vector<float>& expected) {
  ASSERT_EQ(found.size(), expected.size());
  for (std::size_t i = 0; i < found.size(); ++i) {
    if (std::isnan(found[i]) && std::isnan(expected[i])) continue;
    ASSERT_EQ(found[i], expected[i]) << "element " << i;
  }
}

TEST(ReferencePage, NumbersAreThoseOfTheKernels) {
  const auto expect_same = [](double found, float expected, std::uint32_t code) {
    if (std::isnan(expected)) {
      ASSERT_TRUE(std::isnan(found)) << code;
    } else {
      ASSERT_EQ(found, expected) << code;
      ASSERT_EQ(std::signbit(found), std::signbit(expected)) << code;
    }
  };
  for (std::uint32_t code = 0; code < 65536; ++code) {
    expect_same(reference::fp16(code), from_fp16(static_cast<std::uint16_t>(code)), code);
    expect_same(reference::bf16(code), from_bf16(static_cast<std::uint16_t>(code)), code);
  }
  for (std::uint32_t code = 0; code < 256; ++code)
    expect_same(reference::e4m3(code), from_e4m3(static_cast<std::uint8_t>(code)), code);
  for (std::uint32_t code = 0; code < 255; ++code)
    expect_same(reference::e8m0(code), from_e8m0(static_cast<std::uint8_t>(code)), code);
  for (std::uint32_t code = 0; code < 16; ++code)
    expect_same(reference::e2m1(code), from_e2m1(static_cast<std::uint8_t>(code)), code);
}

TEST(ReferencePage, ReadsEveryFormatAndShapeAsTheCodecDoes) {
  std::uint64_t seed = 1;
  for (const PageShape& shape : test_shapes())
    for (const Tokens tokens : {Tokens{1}, shape.tokens - 5, shape.tokens}) {
      SCOPED_TRACE(describe(shape) + ", seed " + std::to_string(seed));
      const Tensor keys(shape, NumberFormat::fp16, Data::normal, seed++);
      const Tensor values(shape, NumberFormat::bf16, Data::outliers, seed++);
      const Encoded encoded = encode(shape, keys, values, tokens, {0.75f, 3});
      ASSERT_EQ(encoded.result.status, Status::ok);
      const reference::PageReader reader(shape, encoded.page);
      ASSERT_EQ(reader.used_tokens(), tokens);
      for (const bool side : {false, true})
        ASSERT_NO_FATAL_FAILURE(
            expect_same_bits(reader.decoded(side, side ? 3 : 0.75f),
                             decode(shape, encoded.page, side, tokens, {0.75f, 3})));
    }
}

// Every code, the ones that no encoder writes among them.
TEST(ReferencePage, ReadsRandomPayloadAsTheCodecDoes) {
  std::mt19937_64 random(11);
  for (const PageShape& shape : test_shapes()) {
    SCOPED_TRACE(describe(shape));
    const Tensor rows(shape, NumberFormat::fp16, Data::one_sided, 5);
    Page page = encode(shape, rows, rows, shape.tokens).page;
    const auto payload = static_cast<std::size_t>(page_payload_bytes(shape.format.key, shape) +
                                                  page_payload_bytes(shape.format.value, shape));
    for (std::size_t i = 0; i < payload; ++i) page[i] = static_cast<std::byte>(random());
    const reference::PageReader reader(shape, page);
    for (const bool side : {false, true})
      ASSERT_NO_FATAL_FAILURE(
          expect_same_bits(reader.decoded(side), decode(shape, page, side, shape.tokens)));
  }
}

TEST(ReferencePage, NothingButPaddingLiesBeforeTheTrailer) {
  for (const PageShape& shape : test_shapes()) {
    SCOPED_TRACE(describe(shape));
    const Tensor rows(shape, NumberFormat::fp16, Data::normal, 5);
    const Page page = encode(shape, rows, rows, shape.tokens).page;
    const reference::PageReader reader(shape, page);
    const std::size_t trailer = page.size() - 64;
    ASSERT_LE(reader.metadata_end(), trailer);
    ASSERT_LT(trailer - reader.metadata_end(), 64u);
    for (std::size_t i = reader.metadata_end(); i < trailer; ++i) ASSERT_EQ(page[i], std::byte{0});
  }
}

}  // namespace
}  // namespace modalkv
