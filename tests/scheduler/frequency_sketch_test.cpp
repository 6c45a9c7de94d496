#include "scheduler/frequency_sketch.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>
#include <string>

namespace modalkv {
namespace {

TEST(FrequencySketch, NeverUnderestimatesBeforeAging) {
  for (std::uint64_t seed = 1; seed <= 50; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    std::mt19937_64 random(seed);
    FrequencySketch sketch;
    std::map<std::uint64_t, int> counts;
    std::size_t room = 16;
    sketch.reserve(room);
    for (int addition = 0; addition < 3000 && sketch.agings() == 0; ++addition) {
      if (random() % 500 == 0) sketch.reserve(room *= 2);  // growing forgets nothing
      const std::uint64_t key = random() % (1 + random() % 300);
      sketch.add(key);
      if (sketch.agings() > 0) break;
      ++counts[key];
      for (const auto& [known, count] : counts)
        ASSERT_GE(sketch.count(known), std::min(count, FrequencySketch::kMost)) << known;
    }
  }
}

TEST(FrequencySketch, SeldomOverestimatesWithRoom) {
  FrequencySketch sketch;
  sketch.reserve(4096);
  for (std::uint64_t key = 0; key < 4096; ++key)
    for (std::uint64_t time = 0; time <= key % 4; ++time) sketch.add(key);
  int exact = 0, unseen = 0;
  for (std::uint64_t key = 0; key < 4096; ++key) {
    exact += sketch.count(key) == static_cast<int>(key % 4) + 1;
    unseen += sketch.count(1'000'000 + key) == 0;
  }
  EXPECT_GT(exact, 3500);
  EXPECT_GT(unseen, 3000);
}

TEST(FrequencySketch, CountsHalveWithAge) {
  FrequencySketch sketch;
  sketch.reserve(64);
  for (int i = 0; i < 12; ++i) sketch.add(1);
  EXPECT_EQ(sketch.count(1), 12);
  for (std::uint64_t key = 100; sketch.agings() == 0; ++key) sketch.add(key);
  EXPECT_GE(sketch.count(1), 6);
  EXPECT_LE(sketch.count(1), 7);
  for (std::uint64_t key = 100; sketch.agings() < 5; ++key) sketch.add(key);
  EXPECT_LE(sketch.count(1), 3) << "forgotten, but for the noise of the others";
}

}  // namespace
}  // namespace modalkv
