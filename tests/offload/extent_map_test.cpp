#include "offload/extent_map.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <vector>

namespace modalkv {
namespace {

TEST(ExtentMap, FillsTheSmallestHoleThatFits) {
  ExtentMap map(100);
  const Extent a = *map.allocate(10), b = *map.allocate(5);
  ASSERT_TRUE(map.allocate(10));
  map.free(a);
  map.free(b);
  EXPECT_EQ(map.largest_free_bytes(), 75);
  EXPECT_EQ(*map.allocate(15), (Extent{0, 15})) << "neighbours joined";
  EXPECT_FALSE(map.allocate(76));
  EXPECT_TRUE(map.allocate(75));
  EXPECT_EQ(map.free_bytes(), 0);
}

TEST(ExtentMap, ClaimsOnlyWhatIsFree) {
  ExtentMap map(100);
  EXPECT_TRUE(map.claim({40, 20}));
  for (const Extent& taken : {Extent{40, 20}, {30, 11}, {59, 10}, {45, 5}, {90, 11}, {100, 1}})
    EXPECT_FALSE(map.claim(taken));
  EXPECT_TRUE(map.claim({0, 40}));
  EXPECT_TRUE(map.claim({60, 40}));
  EXPECT_EQ(map.free_bytes(), 0);
}

// Against a plain array of units.
TEST(ExtentMap, AgreesWithAnArray) {
  const unsigned seed = 11;
  std::mt19937 random(seed);
  constexpr Bytes kUnits = 200;
  std::vector<bool> taken(kUnits);
  std::vector<Extent> extents;
  ExtentMap map(kUnits);
  const auto set = [&](const Extent& extent, bool to) {
    for (Bytes i = extent.offset; i < extent.offset + extent.bytes; ++i) {
      ASSERT_NE(taken[static_cast<std::size_t>(i)], to) << "two owners, seed " << seed;
      taken[static_cast<std::size_t>(i)] = to;
    }
  };
  for (int step = 0; step < 20'000; ++step) {
    Bytes largest = 0, run = 0;
    for (const bool unit : taken) largest = std::max(largest, run = unit ? 0 : run + 1);
    ASSERT_EQ(map.largest_free_bytes(), largest);
    ASSERT_EQ(map.free_bytes(), std::count(taken.begin(), taken.end(), false));
    if (random() % 2 == 0) {
      const auto extent = map.allocate(1 + random() % 12);
      if (!extent) continue;
      set(*extent, true);
      extents.push_back(*extent);
    } else if (!extents.empty()) {
      std::swap(extents[random() % extents.size()], extents.back());
      set(extents.back(), false);
      map.free(extents.back());
      extents.pop_back();
    }
  }
}

}  // namespace
}  // namespace modalkv
