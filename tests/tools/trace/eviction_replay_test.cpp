#include "tools/trace/eviction_replay.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <limits>
#include <map>
#include <random>
#include <set>
#include <string>

#include "scheduler/policies.hpp"
#include "tools/profile/profile.hpp"
#include "tools/trace/generator.hpp"
#include "tools/trace/trace_reader.hpp"

namespace modalkv {
namespace {

constexpr EvictionPolicy kPolicies[] = {EvictionPolicy::lru, EvictionPolicy::tiny_lfu,
                                        EvictionPolicy::cost_aware};

UnitUses random_uses(std::mt19937_64& random, bool alike, std::size_t most_of_request) {
  UnitUses uses{.units = {}, .uses = {}, .request_starts = {0}};
  for (int unit = 0; unit < 6; ++unit)
    uses.units.push_back({.bytes = alike ? 2 : 1 + static_cast<Bytes>(random() % 4),
                          .reload_ns = alike ? 3 : static_cast<Nanos>(random() % 9)});
  for (int request = 0; request < 12; ++request) {
    std::set<std::uint32_t> units;
    for (std::size_t i = 1 + random() % most_of_request; i > 0; --i)
      units.insert(static_cast<std::uint32_t>(random() % 6));
    uses.uses.insert(uses.uses.end(), units.begin(), units.end());
    uses.request_starts.push_back(uses.uses.size());
  }
  return uses;
}

// The least time to reload over every way to choose what stays between two requests: any set that
// fits, of what was there or has just been used.
Nanos optimum_ns(const UnitUses& uses, Bytes capacity) {
  using Set = unsigned;  // a bit a unit
  const auto bytes = [&](Set set) {
    Bytes sum = 0;
    for (std::size_t unit = 0; unit < uses.units.size(); ++unit)
      if (set >> unit & 1) sum += uses.units[unit].bytes;
    return sum;
  };
  std::map<Set, Nanos> best = {{0, 0}};
  Set seen = 0;
  for (std::size_t request = 0; request < uses.requests(); ++request) {
    std::map<Set, Nanos> next;
    Set asked = 0;
    for (const std::uint32_t unit : uses.of_request(request)) asked |= 1u << unit;
    for (const auto& [held, so_far_ns] : best) {
      Nanos reload_ns = so_far_ns;
      for (std::size_t unit = 0; unit < uses.units.size(); ++unit)
        if ((asked & seen & ~held) >> unit & 1) reload_ns += uses.units[unit].reload_ns;
      const Set possible = held | asked;
      for (Set stays = possible;; stays = (stays - 1) & possible) {
        if (bytes(stays) <= capacity) {
          const auto [known, is_new] = next.emplace(stays, reload_ns);
          known->second = std::min(known->second, reload_ns);
        }
        if (stays == 0) break;
      }
    }
    seen |= asked;
    best = std::move(next);
  }
  Nanos least_ns = std::numeric_limits<Nanos>::max();
  for (const auto& [held, reload_ns] : best) least_ns = std::min(least_ns, reload_ns);
  return least_ns;
}

TEST(EvictionReplay, NothingBeatsTheOptimumAndTheBoundIsBelowIt) {
  for (std::uint64_t seed = 1; seed <= 100; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    std::mt19937_64 random(seed);
    const UnitUses uses = random_uses(random, false, 3);
    for (const Bytes capacity : {1, 3, 6, 10, 24}) {
      SCOPED_TRACE("capacity " + std::to_string(capacity));
      const Nanos optimum = optimum_ns(uses, capacity);
      EXPECT_LE(least_reload_ns(uses, capacity), optimum);
      EXPECT_GE(replay_farthest(uses, capacity).reload_ns, optimum);
      for (const EvictionPolicy policy : kPolicies)
        EXPECT_GE(replay_eviction(uses, policy, capacity).reload_ns, optimum) << name(policy);
    }
  }
}

TEST(EvictionReplay, FarthestNextUseIsOptimalForUnitsThatAreAlike) {
  for (std::uint64_t seed = 1; seed <= 100; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    std::mt19937_64 random(seed);
    const UnitUses uses = random_uses(random, true, 1);
    for (const Bytes capacity : {4, 6, 8})
      // A tier that must take in what it serves: at least the optimum of one that need not, and
      // with room for one more at most that.
      EXPECT_LE(replay_farthest(uses, capacity + 2).reload_ns, optimum_ns(uses, capacity));
  }
}

TEST(EvictionReplay, WithRoomForAllNothingIsReloaded) {
  std::mt19937_64 random(1);
  const UnitUses uses = random_uses(random, false, 3);
  EXPECT_EQ(least_reload_ns(uses, uses.bytes()), 0);
  for (const EvictionPolicy policy : kPolicies) {
    const EvictionOutcome outcome = replay_eviction(uses, policy, uses.bytes());
    EXPECT_EQ(outcome.reload_ns, 0);
    EXPECT_GT(outcome.reused_bytes, 0);
    EXPECT_EQ(outcome.hit_bytes, outcome.reused_bytes);
    const EvictionOutcome none = replay_eviction(uses, policy, 0);
    EXPECT_EQ(none.reload_ns, none.reusable_ns);
    EXPECT_EQ(none.hit_bytes, 0);
  }
}

TEST(UnitUses, AUnitIsASegmentBehindItsWholePrefix) {
  const auto segment = [](TokenClass token_class, std::uint64_t content) {
    return Segment{token_class, 100, content == 0 ? ContentId{} : ContentId{{content}}};
  };
  Trace trace;
  for (const std::uint64_t last : {2u, 2u, 3u, 0u}) {
    trace.requests.push_back(
        {.first_segment = static_cast<std::uint32_t>(trace.segments.size()), .segment_count = 3});
    trace.segments.push_back(segment(TokenClass::image, 1));
    trace.segments.push_back(segment(TokenClass::text, last));
    trace.segments.push_back(segment(TokenClass::text, 9));
  }
  const ModelGeometry model = load_model("llava-1.5-7b");
  const CostModel cost(model, load_hardware("rtx-4090"));
  const PrecisionPolicy policy = *find_policy("text-centric");
  const UnitUses uses = unit_uses(trace, model, policy, cost, ReloadBy::recompute);
  EXPECT_EQ(uses.uses, (std::vector<std::uint32_t>{0, 1, 2, 0, 1, 2, 0, 3, 4, 0}));
  EXPECT_EQ(uses.units[0].bytes, 100 * kv_bytes_per_token(model, *policy.visual_low));
  EXPECT_EQ(uses.units[1].bytes, 100 * kv_bytes_per_token(model, policy.high));
  EXPECT_GT(uses.units[2].reload_ns, uses.units[1].reload_ns) << "more tokens to attend to";
  EXPECT_GT(unit_uses(trace, model, policy, cost, ReloadBy::recompute).units[1].reload_ns,
            unit_uses(trace, model, policy, cost, ReloadBy::link).units[1].reload_ns);
}

// The cost-aware policy may be so much worse than the better of the other two.
constexpr double kTie = 1.02;

void expect_cost_aware_wins(const Trace& trace, const char* model_name,
                            std::initializer_list<double> capacities) {
  const ModelGeometry model = load_model(model_name);
  const CostModel cost(model, load_hardware("rtx-4090"));
  for (const ReloadBy by : {ReloadBy::link, ReloadBy::recompute}) {
    const UnitUses uses = unit_uses(trace, model, *find_policy("text-centric"), cost, by);
    for (const double share : capacities) {
      const auto capacity = static_cast<Bytes>(share * static_cast<double>(uses.bytes()));
      std::map<EvictionPolicy, double> reload_ns;
      for (const EvictionPolicy policy : kPolicies)
        reload_ns[policy] = static_cast<double>(replay_eviction(uses, policy, capacity).reload_ns);
      EXPECT_LE(
          reload_ns[EvictionPolicy::cost_aware],
          kTie * std::min(reload_ns[EvictionPolicy::lru], reload_ns[EvictionPolicy::tiny_lfu]))
          << trace.name << " at " << share;
      EXPECT_GE(reload_ns[EvictionPolicy::cost_aware],
                static_cast<double>(least_reload_ns(uses, capacity)));
    }
  }
}

Trace photos(std::int64_t requests, std::int64_t pool, double zipf) {
  const auto workload = std::find_if(workloads().begin(), workloads().end(),
                                     [](const Workload& each) { return each.name == "servegen"; });
  return generate_trace(*workload,
                        {.requests = requests, .image_pool = pool, .image_zipf = zipf, .seed = 7});
}

TEST(EvictionReplay, CostAwareReloadsLeastOfPopularPhotos) {
  expect_cost_aware_wins(photos(5000, 700, 1.0), "qwen2.5-vl-7b", {0.03, 0.1});
}

// With room for a third of them W-TinyLFU can be ahead: it has nothing to learn first.
TEST(EvictionReplayNightly, CostAwareReloadsLeastOfManyPhotos) {
  expect_cost_aware_wins(photos(34'846, 5000, 1.0), "qwen2.5-vl-7b", {0.01, 0.03, 0.1});
  expect_cost_aware_wins(photos(20'000, 2000, 0.7), "llava-1.5-7b", {0.01, 0.03, 0.1});
}

TEST(EvictionReplayNightly, CostAwareReloadsLeastOfPublishedConversations) {
  const auto file = std::filesystem::path(MODALKV_SOURCE_DIR) / ".." / "shared" / "data" /
                    "traces" / "mooncake_conversation.jsonl";
  if (!std::filesystem::exists(file)) GTEST_SKIP() << "not run: no " << file;
  expect_cost_aware_wins(read_trace(file, {}), "llama-3.1-8b", {0.03, 0.1, 0.2, 0.3});
}

}  // namespace
}  // namespace modalkv
