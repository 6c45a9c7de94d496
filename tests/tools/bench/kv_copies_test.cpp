#include "tools/bench/kv_copies.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <set>
#include <vector>

#include "scheduler/format_name.hpp"

namespace modalkv {
namespace {

constexpr std::array<Tokens, 3> kLengths{100, 16, 1300};  // 2, 1 and 21 pages of 64

PageShape shape_of(const char* format) {
  return {64, 2, 32, parse_kv_format(format)};
}

TEST(KvCopies, EverySequenceOfEveryCopyHasIntactPagesOfItsOwn) {
  const PageShape shape = shape_of("int4-g32");
  const KvCopies kv(shape, NumberFormat::bf16, kLengths, 3, 1);
  EXPECT_EQ(kv.distinct_pages(), 16u);
  std::set<const std::byte*> addresses;
  for (int copy = 0; copy < 3; ++copy)
    for (std::size_t sequence = 0; sequence < kLengths.size(); ++sequence) {
      const PageList list = kv.list(copy, sequence);
      EXPECT_EQ(list.tokens, kLengths[sequence]);
      ASSERT_EQ(list.pages.size(), static_cast<std::size_t>(divide_up(list.tokens, 64)));
      for (const std::byte* page : list.pages) {
        EXPECT_EQ(verify_page({page, static_cast<std::size_t>(page_bytes(shape))}), Status::ok);
        EXPECT_GE(page, kv.memory().data());
        EXPECT_LE(page + page_bytes(shape), kv.memory().data() + kv.memory().size());
        addresses.insert(page);
      }
    }
  EXPECT_EQ(addresses.size(), 3u * 24);
}

TEST(KvCopies, WhatIsSaidOfATokenIsWhatItsPageHolds) {
  const PageShape shape = shape_of("int8-int4");
  const KvCopies kv(shape, NumberFormat::fp16, kLengths, 2, 1);
  std::vector<float> keys(64 * 2 * 32), values(keys.size());
  for (std::size_t sequence = 0; sequence < kLengths.size(); ++sequence) {
    const PageList list = kv.list(1, sequence);
    for (Tokens token = 0; token < list.tokens; ++token) {
      if (token % 64 == 0) {
        const std::span page(list.pages[static_cast<std::size_t>(token / 64)],
                             static_cast<std::size_t>(page_bytes(shape)));
        decode_keys(shape, page, {}, keys);
        decode_values(shape, page, {}, values);
      }
      for (int head = 0; head < 2; ++head) {
        const auto at = (token % 64 * 2 + head) * 32;
        const auto key = kv.key(sequence, token, head), value = kv.value(sequence, token, head);
        ASSERT_TRUE(std::equal(key.begin(), key.end(), keys.begin() + at)) << token;
        ASSERT_TRUE(std::equal(value.begin(), value.end(), values.begin() + at)) << token;
      }
    }
  }
}

TEST(KvCopies, BytesReadAreThoseOfWholeTiles) {
  // 64 + 48 tokens, 16, and 20 x 64 + 32: 1440 of 2 heads, K and V of 32 elements.
  const auto bytes = [](const char* format) {
    return KvCopies(shape_of(format), NumberFormat::fp16, kLengths, 1, 1).bytes_read();
  };
  EXPECT_EQ(bytes("fp16"), 1440 * 2 * 2 * 64);
  EXPECT_EQ(bytes("int4-g32"), 1440 * 2 * 2 * (16 + 4));
  EXPECT_EQ(bytes("int4-g16-symmetric"), 1440 * 2 * 2 * (16 + 4));
  // Scales of all channels, whichever tokens of a page are used: 24 pages.
  EXPECT_EQ(bytes("int4-channel"), 1440 * 2 * 2 * 16 + 24 * 2 * 2 * 32 * 4);
}

}  // namespace
}  // namespace modalkv
