#include "scheduler/reuse_value_order.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <random>
#include <string>
#include <vector>

namespace modalkv {
namespace {

// The value of a unit from the times of all its uses, in plain exponentials.
struct NaiveUnit {
  std::vector<double> uses;
  double reload_ns_per_byte = 0;

  double value(double now, double half_life) const {
    double faded = 0;
    for (const double time : uses) faded += std::exp2((time - now) / half_life);
    return faded * reload_ns_per_byte;
  }
};

// Fading is linear between powers of two: at most 0.69 / 0.5 = 1.39 times slower than it should be,
// and a logarithm is off by 0.09. Departed units keep their uses.
TEST(ReuseValueOrder, TheLowestIsWorthLeast) {
  constexpr double kTolerance = 1.39 * 1.07 * 1.07;
  for (std::uint64_t seed = 1; seed <= 100; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    std::mt19937_64 random(seed);
    const double half_life = 1 + static_cast<double>(random() % 50);
    ReuseValueOrder order(half_life, 1000);
    std::map<std::uint64_t, NaiveUnit> naive;
    std::map<std::uint64_t, ReuseValueOrder::Unit> here;
    double now = 0;
    for (int operation = 0; operation < 500; ++operation) {
      const std::uint64_t id = random() % 40;
      const auto step = static_cast<double>(random() % 3);
      order.advance(step);
      now += step;
      NaiveUnit& known = naive[id];
      known.uses.push_back(now);
      if (const auto found = here.find(id); found != here.end()) {
        order.use(found->second);
      } else {
        ReuseValueOrder::Unit& unit = here[id];
        unit.id = UnitId{id};
        unit.facts = {.bytes = 1 + static_cast<Bytes>(id % 7),
                      .reload_ns = 10 + 40 * static_cast<Nanos>(id % 5)};
        known.reload_ns_per_byte =
            static_cast<double>(unit.facts.reload_ns) / static_cast<double>(unit.facts.bytes);
        order.add(unit);
      }
      if (here.size() < 20) continue;
      ReuseValueOrder::Unit& lowest = *order.lowest();
      const auto lowest_id = static_cast<std::uint64_t>(lowest.id);
      double least = naive[lowest_id].value(now, half_life);
      const double chosen = least;
      for (const auto& [other, unit] : here)
        least = std::min(least, naive[other].value(now, half_life));
      ASSERT_LE(chosen, kTolerance * least) << "operation " << operation;
      order.hold(lowest);
      order.evict(lowest);
      here.erase(lowest_id);
    }
  }
}

TEST(ReuseValueOrder, WhatCostsNothingToReloadLeavesFirst) {
  ReuseValueOrder order(1, 10);
  ReuseValueOrder::Unit dear, free;
  dear.facts = {.bytes = 1'000'000, .reload_ns = 1};
  free.facts = {.bytes = 1, .reload_ns = 0};
  order.add(free);
  order.add(dear);
  for (int use = 0; use < 10; ++use) order.use(free);
  EXPECT_EQ(order.lowest(), &free);
}

TEST(ReuseValueOrder, ANewUnitIsWorthWhatItsKindIs) {
  ReuseValueOrder order(1e9, 10);
  const auto facts = [](bool photo) {
    return EvictionFacts{.bytes = 10,
                         .token_class = photo ? TokenClass::image : TokenClass::text,
                         .format = both(photo ? int4_grouped(64) : fp16()),
                         .reload_ns = 1000};
  };
  for (std::uint64_t i = 0; i < 100; ++i) {  // every text is used again, no photo is
    ReuseValueOrder::Unit unit;
    unit.id = UnitId{i};
    unit.facts = facts(i % 2 == 0);
    order.add(unit);
    if (i % 2) order.use(unit);
    order.hold(unit);
    order.evict(unit);
  }
  ReuseValueOrder::Unit text, photo;
  text.id = UnitId{1000};
  text.facts = facts(false);
  photo.id = UnitId{1001};
  photo.facts = facts(true);
  order.add(text);
  order.add(photo);
  EXPECT_EQ(order.lowest(), &photo) << "although it is the more recent one";
  for (int use = 0; use < 3; ++use) order.use(photo);
  EXPECT_EQ(order.lowest(), &text) << "but what was used counts for itself";
}

}  // namespace
}  // namespace modalkv
