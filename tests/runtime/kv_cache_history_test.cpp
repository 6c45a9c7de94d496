// The KV cache under random histories, on real threads and in virtual time, checked for hazards;
// and what finds and shrinks a failing one.
#include <gtest/gtest.h>

#include <cstdlib>
#include <deque>
#include <fstream>
#include <numeric>
#include <set>

#include "tests/runtime/history_worlds.hpp"

namespace modalkv {
namespace {

// What a number of histories came to: a test in which nothing happened proves nothing.
struct Tally {
  RuntimeCounters sum;
  int outputs = 0, failed_steps = 0, cuts = 0, exact_cuts = 0;

  void add(const HistoryResult& history) {
    const RuntimeCounters& one = history.counters;
    sum.streamed_bytes += one.streamed_bytes;
    sum.prefetched_bytes += one.prefetched_bytes;
    sum.wasted_prefetch_bytes += one.wasted_prefetch_bytes;
    sum.left_bytes += one.left_bytes;
    sum.arrived_bytes += one.arrived_bytes;
    sum.compressed_pages += one.compressed_pages;
    sum.scored_tokens += one.scored_tokens;
    sum.promoted_tokens += one.promoted_tokens;
    sum.verified_pages += one.verified_pages;
    sum.reused_tokens += one.reused_tokens;
    sum.reuse_misses += one.reuse_misses;
    sum.kept_segments += one.kept_segments;
    sum.evicted_segments += one.evicted_segments;
    sum.stored_segments += one.stored_segments;
    sum.loaded_segments += one.loaded_segments;
    sum.unstored_segments += one.unstored_segments;
    sum.unloaded_segments += one.unloaded_segments;
    sum.busy += one.busy;
    sum.no_space += one.no_space;
    sum.failed_groups += one.failed_groups;
    sum.timeouts += one.timeouts;
    sum.lost_tokens += one.lost_tokens;
    outputs += history.good_outputs;
    failed_steps += history.failed_steps;
    cuts += history.cuts;
    exact_cuts += history.exact_cuts;
  }
  void expect_everything_happened() const {
    EXPECT_GT(outputs, 100);
    EXPECT_GT(sum.prefetched_bytes, 0);
    EXPECT_GT(sum.streamed_bytes, sum.prefetched_bytes) << "prefetches are streamed too";
    EXPECT_GT(sum.prefetched_bytes, sum.wasted_prefetch_bytes);
    EXPECT_GT(sum.left_bytes, 0);
    EXPECT_GT(sum.arrived_bytes, 0);
    EXPECT_GT(sum.compressed_pages, 0);
    EXPECT_GT(sum.scored_tokens, sum.promoted_tokens);
    EXPECT_GT(sum.verified_pages, 0);
    EXPECT_GT(sum.reused_tokens, 0);
    EXPECT_GT(sum.reuse_misses, 0);
    EXPECT_GT(sum.kept_segments, 0);
    EXPECT_GT(sum.busy, 0);
    EXPECT_GT(exact_cuts, cuts / 2);
  }
};

TEST(KvCache, RandomHistoriesOnRealThreads) {
  Tally tally;
  for (std::uint64_t seed = 1; seed <= 24 && !HasFailure(); ++seed)
    tally.add(check_history({HistoryWorld::threads, seed}));
  tally.expect_everything_happened();
  EXPECT_GT(tally.sum.evicted_segments, 0);
}

TEST(KvCache, RandomHistoriesOnStreamsOfAnEmulatedGpu) {
  Tally tally;
  for (std::uint64_t seed = 1; seed <= 24 && !HasFailure(); ++seed)
    tally.add(check_history({HistoryWorld::gpu, seed}));
  tally.expect_everything_happened();
  EXPECT_GT(tally.sum.evicted_segments, 0);
}

TEST(KvCache, RandomHistoriesInVirtualTime) {
  Tally tally;
  for (std::uint64_t seed = 1000; seed < 1060 && !HasFailure(); ++seed)
    tally.add(check_history({HistoryWorld::sim, seed, seed % 3 == 0 ? 50 : 0}));
  tally.expect_everything_happened();
  EXPECT_GT(tally.sum.promoted_tokens, 0);
  EXPECT_GT(tally.sum.evicted_segments, 0);
}

// Long ones about content that recurs, with a host too small for it.
TEST(KvCache, RandomHistoriesOverADisk) {
  Tally tally, faulty;
  for (std::uint64_t seed = 4000; seed < 4048 && !HasFailure(); ++seed) {
    const HistoryWorld world = seed % 4 == 0   ? HistoryWorld::threads
                               : seed % 4 == 1 ? HistoryWorld::faulty
                                               : HistoryWorld::sim;
    const HistoryCase which{world, seed * 3 + 1};
    ASSERT_TRUE(which.has_small_host());
    (world == HistoryWorld::faulty ? faulty : tally).add(check_history(which, 250));
  }
  tally.expect_everything_happened();
  EXPECT_GT(tally.sum.stored_segments, 0);
  EXPECT_GT(tally.sum.loaded_segments, 0);
  EXPECT_GT(faulty.sum.stored_segments, 0);
  EXPECT_GT(faulty.sum.loaded_segments, 0);
  EXPECT_GT(faulty.sum.unstored_segments + faulty.sum.unloaded_segments, 0);
}

TEST(KvCache, FaultsCostStepsButNeverGiveAWrongOutput) {
  Tally tally;
  for (std::uint64_t seed = 2000; seed < 2040 && !HasFailure(); ++seed)
    tally.add(check_history({HistoryWorld::faulty, seed}));
  tally.expect_everything_happened();
  EXPECT_GT(tally.failed_steps, 0);
  EXPECT_GT(tally.sum.failed_groups, 0);
  EXPECT_GT(tally.sum.timeouts, 0);
  EXPECT_GT(tally.sum.lost_tokens, 0);
}

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr std::uint64_t kNightlyHistories = 1'000;  // they take ten times as long
#else
constexpr std::uint64_t kNightlyHistories = 10'000;
#endif

TEST(KvCacheNightly, ManyHistories) {
  Tally tally;
  for (std::uint64_t i = 0; i < kNightlyHistories && !HasFailure(); ++i) {
    const HistoryWorld world = i % 20 == 0    ? HistoryWorld::threads
                               : i % 20 == 10 ? HistoryWorld::gpu
                               : i % 4 == 1   ? HistoryWorld::faulty
                                              : HistoryWorld::sim;
    tally.add(check_history({world, 1'000'000 + i, i % 5 == 0 ? 50 : 0}));
  }
  tally.expect_everything_happened();
}

TEST(KvCacheHistory, OfTheEnvironment) {
  const char* path = std::getenv("MODALKV_HISTORY");
  if (path == nullptr) GTEST_SKIP() << "MODALKV_HISTORY names no file";
  std::ifstream file(path);
  const auto history = read_history(file);
  ASSERT_TRUE(history.has_value()) << path << " is no history";
  EXPECT_EQ(replay(history->which, history->actions).problem, "");
}

TEST(KvCacheHistory, IsReadAsItWasPrinted) {
  const HistoryCase which{HistoryWorld::faulty, 77, 50};
  const auto actions = ActionSource(which.seed).draw(200);
  std::istringstream text(to_text(which, actions));
  const auto read = read_history(text);
  ASSERT_TRUE(read.has_value());
  EXPECT_EQ(read->actions, actions);
  EXPECT_EQ(to_text(read->which, {}), to_text(which, {}));
  for (const char* wrong : {"", "history moon seed 1 window 0", "history sim seed 1 window 0\njump",
                            "history sim seed 1 window 0\nstep 1 x"}) {
    std::istringstream lines(wrong);
    EXPECT_FALSE(read_history(lines).has_value()) << wrong;
  }
}

// A history goes on meaning something whatever is taken out of it.
TEST(KvCacheHistory, HoldsWithoutAnyOfItsActions) {
  std::mt19937_64 random(5);
  for (std::uint64_t seed = 3000; seed < 3010; ++seed) {
    auto actions = ActionSource(seed).draw(60);
    std::erase_if(actions, [&](const EngineAction&) { return random() % 3 == 0; });
    for (EngineAction& action : actions)
      if (const auto others = simpler(action); !others.empty() && random() % 3 == 0)
        action = others[random() % others.size()];
    const HistoryCase which{HistoryWorld::sim, seed};
    EXPECT_EQ(replay(which, actions).problem, "") << to_text(which, actions);
  }
}

TEST(Shrink, FindsTheFewElementsThatMatter) {
  std::vector<int> list(100);
  std::iota(list.begin(), list.end(), 1);
  const auto fails = [](const std::vector<int>& some) {
    const auto at = [&](int least) {
      return std::find_if(some.begin(), some.end(), [&](int n) { return n >= least; });
    };
    return at(90) != some.end() && std::find(some.begin(), some.end(), 17) < at(50);
  };
  const auto simpler = [](int n) {
    return n > 0 ? std::vector<int>{n / 2, n - 1} : std::vector<int>{};
  };
  ASSERT_TRUE(fails(list));
  const auto shortest = shrink(list, fails, simpler);
  EXPECT_EQ(shortest.list, (std::vector<int>{17, 90}));
  EXPECT_LT(shortest.tries, 200);
  EXPECT_EQ(shrink(list, fails, simpler, {.tries = 10}).tries, 10);
}

// Bugs planted between the cache and the checker.
class Careless final : public ForwardingDevice {
 public:
  enum class Bug : std::uint8_t {
    none,
    forgets_events,
    ends_early,  // copies to the host, before they have ended
    spoils_third_copy,
    skips_copies,  // what lay there before stays: another block's page, whole
    swaps_copies,  // of two layers
  };
  Careless(Device& inner, Bug bug) : ForwardingDevice(inner), bug_(bug) {}

  Submitted submit(QueueId queue, std::span<const Op> ops, std::span<const Ticket> after) override {
    std::vector<Op> done(ops.begin(), ops.end());
    const bool to_host = queues()[queue.index].kind == QueueKind::d2h && !ops.empty();
    if (to_host) spoil(done);
    const Submitted submitted =
        inner_.submit(queue, done, bug_ == Bug::forgets_events ? std::span<const Ticket>{} : after);
    if (bug_ == Bug::ends_early && to_host && submitted.status == Status::ok)
      early_.push_back({submitted.ticket, Status::ok, now()});
    return submitted;
  }
  std::optional<Completion> next_completion(Nanos timeout_ns) override {
    if (early_.empty()) {
      auto completion = inner_.next_completion(timeout_ns);
      while (completion && told_.erase(completion->ticket.id) > 0)
        completion = inner_.next_completion(timeout_ns);
      return completion;
    }
    const Completion completion = early_.front();
    early_.pop_front();
    told_.insert(completion.ticket.id);
    return completion;
  }

 private:
  void spoil(std::vector<Op>& copies) {
    if (bug_ == Bug::spoils_third_copy && ++copies_ == 3) {
      Address last = std::get<Copy>(copies.back()).to;
      last.offset += last.bytes / 2, last.bytes = 1;
      copies.push_back(Fill{last, 0x5e});
    }
    // Of pages, not of queries.
    const bool of_pages = std::get<Copy>(copies.front()).to.bytes > 4 * kKiB;
    if (bug_ == Bug::skips_copies && of_pages) copies.clear();
    if (bug_ == Bug::swaps_copies && of_pages && copies.size() > 1)
      std::swap(std::get<Copy>(copies[0]).to, std::get<Copy>(copies[1]).to);
  }

  Bug bug_;
  int copies_ = 0;
  std::deque<Completion> early_;
  std::set<std::uint64_t> told_;
};

HistoryResult replay_with(Careless::Bug bug, std::uint64_t seed,
                          const std::vector<EngineAction>& actions) {
  HistoryMemory memory;
  SimDevice sim(small_machine(), {.jitter = 3, .seed = seed});
  CheckingDevice checking(sim);
  Careless careless(checking, bug);
  return replay(careless, checking, memory, {.seed = seed}, actions);
}

struct Planted {
  const char* name;
  Careless::Bug bug;
  const char* found_as;
};

void PrintTo(const Planted& planted, std::ostream* out) {
  *out << planted.name;
}

class PlantedBug : public testing::TestWithParam<Planted> {};

TEST_P(PlantedBug, IsFoundAndItsHistoryIsShort) {
  const auto [name, bug, found_as] = GetParam();
  for (std::uint64_t seed = 1; seed <= 16; ++seed) {
    const auto actions = ActionSource(seed).draw(30);
    const auto replayed = [&](const auto& list) { return replay_with(bug, seed, list); };
    if (replayed(actions).problem.find(found_as) == std::string::npos) continue;
    const auto shortest = shortest_failing(actions, replayed, {.tries = 150});
    RecordProperty("actions", to_text(shortest.list));
    RecordProperty("tries", shortest.tries);
    EXPECT_NE(replayed(shortest.list).problem, "");
    EXPECT_LE(shortest.list.size(), 8u) << to_text(shortest.list);
    EXPECT_EQ(replay_with(Careless::Bug::none, seed, shortest.list).problem, "");
    return;
  }
  FAIL() << "no seed finds " << name;
}

INSTANTIATE_TEST_SUITE_P(
    KvCache, PlantedBug,
    testing::Values(Planted{"AForgottenEvent", Careless::Bug::forgets_events, "are not ordered"},
                    Planted{"ASlotUsedAgainTooEarly", Careless::Bug::ends_early, "are not ordered"},
                    Planted{"ASpoiledCopy", Careless::Bug::spoils_third_copy, "checksum"},
                    Planted{"AStalePage", Careless::Bug::skips_copies, "checksum"},
                    Planted{"SwappedPages", Careless::Bug::swaps_copies, "checksum"}),
    [](const auto& test) { return std::string(test.param.name); });

}  // namespace
}  // namespace modalkv
