#include "scheduler/eviction.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <list>
#include <map>
#include <random>
#include <set>
#include <string>

namespace modalkv {
namespace {

constexpr EvictionPolicy kPolicies[] = {EvictionPolicy::lru, EvictionPolicy::tiny_lfu,
                                        EvictionPolicy::cost_aware};

UnitId unit(std::uint64_t number) {
  return UnitId{number};
}

EvictionFacts facts(Bytes bytes, Nanos reload_ns = 1000) {
  return {.bytes = bytes, .reload_ns = reload_ns};
}

std::vector<UnitId> units(std::initializer_list<std::uint64_t> numbers) {
  std::vector<UnitId> result;
  for (const std::uint64_t number : numbers) result.push_back(unit(number));
  return result;
}

class EveryPolicy : public testing::TestWithParam<EvictionPolicy> {};
INSTANTIATE_TEST_SUITE_P(Eviction, EveryPolicy, testing::ValuesIn(kPolicies), [](const auto& each) {
  std::string text(name(each.param));
  std::erase(text, '-');
  return text;
});

TEST_P(EveryPolicy, PreparesEnoughOrNothing) {
  Eviction eviction(GetParam());
  for (std::uint64_t i = 0; i < 10; ++i) eviction.insert(unit(i), facts(10));
  EXPECT_EQ(eviction.evictable_bytes(), 100);
  EXPECT_TRUE(eviction.prepare(101).empty());
  EXPECT_EQ(eviction.evictable_bytes(), 100) << "nothing was prepared";
  EXPECT_TRUE(eviction.prepare(0).empty());
  EXPECT_EQ(eviction.prepare(25).size(), 3u);
  EXPECT_EQ(eviction.evictable_bytes(), 70);
  EXPECT_EQ(eviction.held_bytes(), 100) << "they have not left yet";
  EXPECT_EQ(eviction.prepare(70).size(), 7u);
  EXPECT_TRUE(eviction.prepare(1).empty());
}

TEST_P(EveryPolicy, PinnedUnitsStay) {
  Eviction eviction(GetParam());
  for (std::uint64_t i = 0; i < 4; ++i) eviction.insert(unit(i), facts(10));
  for (const std::uint64_t i : {0u, 1u, 1u, 3u}) eviction.pin(unit(i));
  eviction.unpin(unit(1));
  EXPECT_EQ(eviction.evictable_bytes(), 10);
  EXPECT_TRUE(eviction.prepare(20).empty());
  EXPECT_EQ(eviction.prepare(10), units({2}));
  eviction.unpin(unit(1));
  EXPECT_EQ(eviction.prepare(10), units({1}));
}

TEST_P(EveryPolicy, ACancelledUnitIsRankedAsBefore) {
  Eviction eviction(GetParam()), other(GetParam());
  for (std::uint64_t i = 0; i < 50; ++i)
    for (Eviction* each : {&eviction, &other}) each->insert(unit(i), facts(10, 100 + 7 * (i % 5)));
  const std::vector<UnitId> prepared = eviction.prepare(200);
  for (const UnitId id : prepared) eviction.cancel(id);
  EXPECT_EQ(eviction.prepare(200), prepared);
  EXPECT_EQ(other.prepare(200), prepared) << "and so for who never asked";
}

TEST_P(EveryPolicy, AUnitThatIsNeededWhileItLeavesIsCancelled) {
  Eviction eviction(GetParam());
  eviction.insert(unit(1), facts(10));
  ASSERT_EQ(eviction.prepare(10), units({1}));
  eviction.pin(unit(1));
  eviction.touch(unit(1));
  eviction.cancel(unit(1));
  EXPECT_TRUE(eviction.prepare(10).empty()) << "it is pinned still";
  eviction.unpin(unit(1));
  EXPECT_EQ(eviction.prepare(10), units({1}));
  eviction.complete(unit(1));
  EXPECT_FALSE(eviction.contains(unit(1)));
  EXPECT_EQ(eviction.held_bytes(), 0);
}

TEST_P(EveryPolicy, MisuseIsABug) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  Eviction eviction(GetParam());
  eviction.insert(unit(1), facts(10));
  eviction.insert(unit(2), facts(10));
  eviction.pin(unit(2));
  EXPECT_DEATH(eviction.insert(unit(1), facts(10)), "bug: eviction: inserted twice");
  EXPECT_DEATH(eviction.insert(unit(3), facts(0)), "without bytes");
  EXPECT_DEATH(eviction.touch(unit(3)), "not here");
  EXPECT_DEATH(eviction.unpin(unit(1)), "more often");
  EXPECT_DEATH(eviction.complete(unit(1)), "without being prepared");
  EXPECT_DEATH(eviction.cancel(unit(1)), "without being prepared");
  EXPECT_DEATH(eviction.erase(unit(2)), "pinned");
  ASSERT_EQ(eviction.prepare(10), units({1}));
  eviction.pin(unit(1));
  EXPECT_DEATH(eviction.complete(unit(1)), "left while it is pinned");
}

// What every policy must keep to, whatever it prefers.
class Books {
 public:
  explicit Books(EvictionPolicy policy) : eviction_(policy) {}

  // One random call; returns the victims of a `prepare`.
  std::vector<UnitId> step(std::mt19937_64& random) {
    const UnitId id = unit(random() % 40);
    const auto found = units_.find(id);
    if (found == units_.end()) {
      const EvictionFacts made{.bytes = 1 + static_cast<Bytes>(random() % 30),
                               .token_class = static_cast<TokenClass>(random() % 4),
                               .format = both(random() % 2 ? fp16() : int4_grouped(64)),
                               .reload_ns = static_cast<Nanos>(random() % 1000)};
      eviction_.insert(id, made);
      units_[id].bytes = made.bytes;
      return {};
    }
    Unit& known = found->second;
    switch (random() % 8) {
      case 0:
        eviction_.pin(id);
        ++known.pins;
        break;
      case 1:
        if (known.pins > 0) eviction_.unpin(id), --known.pins;
        break;
      case 2:
        return prepare(static_cast<Bytes>(random() % 100));
      case 3:
        if (!known.leaving) break;
        if (known.pins > 0 || random() % 2) {
          eviction_.cancel(id);
          known.leaving = false;
        } else {
          eviction_.complete(id);
          units_.erase(found);
        }
        break;
      case 4:
        if (known.pins > 0 || random() % 4) break;
        eviction_.erase(id);
        units_.erase(found);
        break;
      case 5:
        eviction_.reprice(id, static_cast<Nanos>(random() % 1000));
        break;
      default:
        eviction_.touch(id);
    }
    return {};
  }

  void check() const {
    Bytes held = 0;
    for (const auto& [id, known] : units_) held += known.bytes;
    ASSERT_EQ(eviction_.held_bytes(), held);
    ASSERT_EQ(eviction_.evictable_bytes(), evictable());
    ASSERT_EQ(eviction_.size(), units_.size());
  }

 private:
  struct Unit {
    Bytes bytes = 0;
    int pins = 0;
    bool leaving = false;
  };

  Bytes evictable() const {
    Bytes bytes = 0;
    for (const auto& [id, known] : units_)
      if (known.pins == 0 && !known.leaving) bytes += known.bytes;
    return bytes;
  }

  std::vector<UnitId> prepare(Bytes needed) {
    const Bytes possible = evictable();
    const std::vector<UnitId> victims = eviction_.prepare(needed);
    EXPECT_EQ(victims.empty(), needed == 0 || needed > possible);
    Bytes freed = 0;
    for (const UnitId victim : victims) {
      EXPECT_LT(freed, needed) << "one victim too many";
      Unit& leaving = units_.at(victim);
      EXPECT_EQ(leaving.pins, 0);
      EXPECT_FALSE(leaving.leaving) << "prepared twice";
      leaving.leaving = true;
      freed += leaving.bytes;
    }
    EXPECT_TRUE(victims.empty() || freed >= needed);
    return victims;
  }

  Eviction eviction_;
  std::map<UnitId, Unit> units_;
};

TEST_P(EveryPolicy, KeepsItsBooksUnderRandomUseAndRepeatsItself) {
  for (std::uint64_t seed = 1; seed <= 100; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    std::mt19937_64 random(seed), again(seed);
    Books books(GetParam()), twin(GetParam());
    for (int operation = 0; operation < 1000; ++operation) {
      ASSERT_EQ(books.step(random), twin.step(again)) << "operation " << operation;
      books.check();
      if (HasFailure()) return;
    }
  }
}

TEST(Eviction, LruIsAList) {
  for (std::uint64_t seed = 1; seed <= 100; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    std::mt19937_64 random(seed);
    Eviction eviction(EvictionPolicy::lru);
    std::list<UnitId> recent;  // oldest first
    std::map<UnitId, Bytes> bytes;
    std::set<UnitId> pinned;
    for (int operation = 0; operation < 1000; ++operation) {
      const UnitId id = unit(random() % 60);
      if (!bytes.contains(id)) {
        bytes[id] = 1 + static_cast<Bytes>(random() % 9);
        eviction.insert(id, facts(bytes[id], static_cast<Nanos>(random() % 99)));
        recent.push_back(id);
      } else if (random() % 3 == 0) {
        pinned.contains(id) ? eviction.unpin(id) : eviction.pin(id);
        if (!pinned.erase(id)) pinned.insert(id);
      } else {
        eviction.touch(id);
        recent.remove(id);
        recent.push_back(id);
      }
      if (random() % 10) continue;
      const auto needed = static_cast<Bytes>(random() % 40);
      std::vector<UnitId> expected;
      Bytes freed = 0;
      for (const UnitId old : recent) {
        if (freed >= needed) break;
        if (pinned.contains(old)) continue;
        expected.push_back(old);
        freed += bytes[old];
      }
      if (freed < needed) expected.clear();
      ASSERT_EQ(eviction.prepare(needed), expected) << "operation " << operation;
      for (const UnitId victim : expected) {
        eviction.complete(victim);
        recent.remove(victim);
        bytes.erase(victim);
      }
    }
  }
}

// Fills a tier of `capacity` bytes with what is asked for, one unit after the other.
Nanos reload_ns(EvictionPolicy policy, Bytes capacity,
                const std::vector<std::pair<UnitId, EvictionFacts>>& uses) {
  Eviction eviction(policy);
  std::set<UnitId> known;
  Nanos reloads_ns = 0;
  for (const auto& [id, what] : uses) {
    if (eviction.contains(id)) {
      eviction.touch(id);
      continue;
    }
    if (!known.insert(id).second) reloads_ns += what.reload_ns;
    if (const Bytes excess = eviction.held_bytes() + what.bytes - capacity; excess > 0)
      for (const UnitId victim : eviction.prepare(excess)) eviction.complete(victim);
    eviction.insert(id, what);
  }
  return reloads_ns;
}

TEST(Eviction, FrequencySurvivesAScanAndRecencyDoesNot) {
  std::vector<std::pair<UnitId, EvictionFacts>> uses;
  std::uint64_t once = 1000;
  for (int round = 0; round < 50; ++round) {
    for (std::uint64_t popular = 0; popular < 50; ++popular)
      uses.emplace_back(unit(popular), facts(10));
    for (int scanned = 0; scanned < 100; ++scanned) uses.emplace_back(unit(once++), facts(10));
  }
  const Nanos worst = 49 * 50 * 1000;
  EXPECT_EQ(reload_ns(EvictionPolicy::lru, 1000, uses), worst);
  EXPECT_LT(reload_ns(EvictionPolicy::tiny_lfu, 1000, uses), worst / 10);
  EXPECT_LT(reload_ns(EvictionPolicy::cost_aware, 1000, uses), worst / 10);
}

TEST(Eviction, CostAwareKeepsWhatIsDearAByte) {
  std::mt19937_64 random(1);
  std::vector<std::pair<UnitId, EvictionFacts>> uses;
  for (int use = 0; use < 20'000; ++use) {
    const std::uint64_t id = random() % 400;  // half of them ten times as dear
    uses.emplace_back(unit(id), facts(10, id % 2 ? 10'000 : 1'000));
  }
  EXPECT_LT(2 * reload_ns(EvictionPolicy::cost_aware, 2000, uses),
            reload_ns(EvictionPolicy::lru, 2000, uses));
}

TEST(Eviction, TinyLfuLetsWhoWasSeenOftenIn) {
  Eviction eviction(EvictionPolicy::tiny_lfu);
  eviction.insert(unit(1000), facts(1));
  for (int use = 0; use < 8; ++use) eviction.touch(unit(1000));
  ASSERT_EQ(eviction.prepare(1), units({1000}));
  eviction.complete(unit(1000));
  for (std::uint64_t i = 0; i < 100; ++i) eviction.insert(unit(i), facts(1));
  EXPECT_EQ(eviction.prepare(1), units({99})) << "a newcomer that nobody knows gives way";
  eviction.insert(unit(1000), facts(1));
  EXPECT_EQ(eviction.prepare(1), units({0})) << "one that was popular does not";
}

// Each call O(log n): a second. Quadratic would be hours.
TEST_P(EveryPolicy, ManyUnits) {
  constexpr std::uint64_t kUnits = 100'000;
  Eviction eviction(GetParam());
  for (std::uint64_t i = 0; i < kUnits; ++i) eviction.insert(unit(i), facts(1));
  for (std::uint64_t i = 0; i < kUnits; i += 3) eviction.pin(unit(i));
  for (std::uint64_t i = 0; i < kUnits; i += 2) eviction.touch(unit(i));
  const std::vector<UnitId> victims = eviction.prepare(kUnits / 2);
  EXPECT_EQ(victims.size(), kUnits / 2);
  for (const UnitId victim : victims) eviction.complete(victim);
  EXPECT_EQ(eviction.size(), kUnits / 2);
}

}  // namespace
}  // namespace modalkv
