// Kept segments as the trees that they are, against a model that looks at all of them each time.
#include "runtime/content_cache.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>

namespace modalkv {
namespace {

constexpr EvictionFacts kFacts{.bytes = 64};

// Segments by their number, each behind another one or at the beginning of a prompt.
struct Model {
  struct Segment {
    UnitId unit{};
    std::optional<std::uint64_t> before{};
    int pins = 0;  // of its users
  };

  bool is_behind(std::uint64_t number, std::uint64_t front) const {
    for (std::optional at(number); at; at = segments.at(*at).before)
      if (*at == front) return true;
    return false;
  }
  bool is_pinned(std::uint64_t number) const {
    return segments.at(number).pins > 0 ||
           std::any_of(segments.begin(), segments.end(),
                       [&](const auto& other) { return other.second.before == number; });
  }

  std::map<std::uint64_t, Segment> segments;
};

CachedSegment segment(std::uint64_t number, std::optional<UnitId> before) {
  CachedSegment segment;
  segment.prefix = {{number, 0, 0, 1}};
  segment.before = before;
  return segment;
}

class Trees {
 public:
  explicit Trees(std::mt19937_64& random) : random_(random) {}

  void add() {
    Model::Segment added;
    if (!model_.segments.empty() && random_() % 5 != 0) added.before = any();
    added.unit = cache_.add(
        segment(next_, added.before ? std::optional(unit(*added.before)) : std::nullopt), kFacts);
    model_.segments[next_++] = added;
  }
  void pin() {
    const std::uint64_t number = any();
    int& pins = model_.segments.at(number).pins;
    if (random_() % 2 == 0) {
      cache_.pin(unit(number));
      ++pins;
    } else if (pins > 0) {
      cache_.unpin(unit(number));
      --pins;
    }
  }
  void erase() { erase(any()); }
  void evict() {
    const auto victim = cache_.prepare();
    const auto found =
        std::find_if(model_.segments.begin(), model_.segments.end(),
                     [&](const auto& one) { return victim && one.second.unit == *victim; });
    if (!victim) {
      for (const auto& [number, one] : model_.segments) ASSERT_TRUE(model_.is_pinned(number));
      return;
    }
    ASSERT_NE(found, model_.segments.end());
    ASSERT_FALSE(model_.is_pinned(found->first)) << "in use";
    if (random_() % 2 == 0) return cache_.stay(*victim);
    erase(found->first);
  }
  void expect_as_modelled() {
    ASSERT_EQ(cache_.size(), model_.segments.size());
    ASSERT_EQ(cache_.held_bytes(), kFacts.bytes * static_cast<Bytes>(model_.segments.size()));
    Bytes evictable_bytes = 0;
    for (const auto& [number, one] : model_.segments) {
      ASSERT_TRUE(cache_.contains(one.unit));
      ASSERT_EQ(cache_.find({{number, 0, 0, 1}}), one.unit);
      ASSERT_EQ(cache_.is_pinned(one.unit), model_.is_pinned(number));
      evictable_bytes += model_.is_pinned(number) ? 0 : kFacts.bytes;
    }
    ASSERT_EQ(cache_.evictable_bytes(), evictable_bytes);
  }
  bool empty() const { return model_.segments.empty(); }

 private:
  UnitId unit(std::uint64_t number) const { return model_.segments.at(number).unit; }
  std::uint64_t any() {
    return std::next(model_.segments.begin(),
                     static_cast<std::ptrdiff_t>(random_() % model_.segments.size()))
        ->first;
  }
  // All that is behind it and nothing else, the last first.
  void erase(std::uint64_t front) {
    std::vector<std::uint64_t> expected, erased;
    for (const auto& [number, one] : model_.segments)
      if (model_.is_behind(number, front)) expected.push_back(number);
    for (const CachedSegment& one : cache_.erase(unit(front))) {
      const std::uint64_t number = one.prefix.words[0];
      for (const std::uint64_t gone : erased)
        ASSERT_FALSE(model_.is_behind(number, gone)) << "it was found only behind that";
      erased.push_back(number);
    }
    std::sort(erased.begin(), erased.end());
    ASSERT_EQ(erased, expected);
    for (const std::uint64_t number : expected) model_.segments.erase(number);
  }

  std::mt19937_64& random_;
  ContentCache cache_{EvictionPolicy::lru};
  Model model_;
  std::uint64_t next_ = 1;
};

TEST(ContentCache, ErasesWhatIsBehindASegmentAndNothingElse) {
  for (std::uint64_t seed = 1; seed <= 30 && !testing::Test::HasFatalFailure(); ++seed) {
    SCOPED_TRACE(seed);
    std::mt19937_64 random(seed);
    Trees trees(random);
    for (int i = 0; i < 300 && !testing::Test::HasFatalFailure(); ++i) {
      const std::uint64_t what = random() % 20;
      if (trees.empty() || what < 10) {
        trees.add();
      } else if (what < 16) {
        trees.pin();
      } else if (what < 19) {
        trees.evict();
      } else {
        trees.erase();
      }
      trees.expect_as_modelled();
    }
  }
}

TEST(ContentCache, ForgetsALongPromptAndManyThatBeginAlike) {
  constexpr std::uint64_t kSegments = 200'000;
  ContentCache cache(EvictionPolicy::lru);
  const UnitId front = cache.add(segment(0, std::nullopt), kFacts);
  UnitId last = front;
  for (std::uint64_t number = 1; number < kSegments; ++number)
    last = cache.add(segment(number, number % 2 == 0 ? last : front), kFacts);
  EXPECT_EQ(cache.erase(last).size(), 1u);
  EXPECT_EQ(cache.erase(front).size(), kSegments - 1);
  EXPECT_EQ(cache.size(), 0u);
  EXPECT_EQ(cache.held_bytes(), 0);
}

}  // namespace
}  // namespace modalkv
