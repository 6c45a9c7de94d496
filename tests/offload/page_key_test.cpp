#include "offload/page_key.hpp"

#include <gtest/gtest.h>

#include <array>
#include <set>
#include <vector>

namespace modalkv {
namespace {

using KeyBytes = std::array<std::byte, kPageKeyBytes>;

KeyBytes written(const PageKey& key) {
  KeyBytes bytes;
  write_key(key, bytes);
  return bytes;
}

PageKey base() {
  return {{{1, 2, 3, 4}}, 5, 6, {64, 8, 128, {int4_grouped(32), nvfp4(), 16}}};
}

// One field changed at a time.
std::vector<PageKey> neighbours() {
  std::vector<PageKey> keys(16, base());
  for (std::size_t i = 0; i < 4; ++i) keys[i].content.words[i] ^= std::uint64_t{1} << 63;
  keys[4].layer = 0;
  keys[5].page = 0x7fffffff;
  keys[6].shape.tokens = 4096;
  keys[7].shape.kv_heads = 1024;
  keys[8].shape.head_dim = 256;
  keys[9].shape.format.key_rotation = 128;
  keys[10].shape.format.key.group = 64;
  keys[11].shape.format.key.number = NumberFormat::int8;
  keys[12].shape.format.key.zero_bytes = 0;
  keys[13].shape.format.key.per_channel = true;
  keys[14].shape.format.value = int8_token_head();
  keys[15].shape.format.value.scale_bytes = 1;
  keys[15].shape.format.value.number = NumberFormat::mxfp4;
  return keys;
}

TEST(PageKey, ComesBackWhole) {
  std::set<KeyBytes> seen{written(base())};
  for (const PageKey& key : neighbours()) {
    ASSERT_TRUE(is_key(key));
    EXPECT_EQ(read_key(written(key)), key);
    EXPECT_TRUE(seen.insert(written(key)).second) << "no field is left out";
    EXPECT_NE(PageKeyHash{}(key), PageKeyHash{}(base()));
  }
}

TEST(PageKey, WhatIsReadIsWhatWouldBeWritten) {
  const KeyBytes bytes = written(base());
  int keys = 0;
  for (std::size_t at = 0; at < bytes.size(); ++at)
    for (int bit = 0; bit < 8; ++bit) {
      KeyBytes changed = bytes;
      changed[at] ^= static_cast<std::byte>(1 << bit);
      const auto key = read_key(changed);
      if (!key) continue;
      ++keys;
      EXPECT_NE(*key, base());
      EXPECT_EQ(written(*key), changed);
    }
  EXPECT_GT(keys, 256);
}

TEST(PageKey, NotEverythingIsOne) {
  EXPECT_FALSE(is_key({}));
  PageKey key = base();
  key.content = {};
  EXPECT_FALSE(is_key(key));
  key = base();
  key.shape.format.key.group = 1 << 16;
  EXPECT_FALSE(is_key(key)) << "it would be cut";
  EXPECT_FALSE(read_key(KeyBytes{}));
}

}  // namespace
}  // namespace modalkv
