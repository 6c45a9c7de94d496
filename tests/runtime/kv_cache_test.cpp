// The KV cache under random histories, on real threads and in virtual time, checked for hazards;
// and under faults.
#include "runtime/kv_cache.hpp"

#include <gtest/gtest.h>

#include "tests/offload/devices.hpp"
#include "tests/runtime/kv_history.hpp"

namespace modalkv {
namespace {

// What a number of histories came to: a test in which nothing happened proves nothing.
struct Tally {
  CacheCounters sum;
  int outputs = 0, failed_steps = 0, cuts = 0, exact_cuts = 0;

  void add(const History& history) {
    const CacheCounters& one = history.cache().counters();
    sum.streamed_bytes += one.streamed_bytes;
    sum.prefetched_bytes += one.prefetched_bytes;
    sum.wasted_prefetch_bytes += one.wasted_prefetch_bytes;
    sum.left_bytes += one.left_bytes;
    sum.arrived_bytes += one.arrived_bytes;
    sum.compressed_pages += one.compressed_pages;
    sum.verified_pages += one.verified_pages;
    sum.busy += one.busy;
    sum.no_space += one.no_space;
    sum.failed_groups += one.failed_groups;
    sum.timeouts += one.timeouts;
    sum.lost_tokens += one.lost_tokens;
    outputs += history.good_outputs();
    failed_steps += history.failed_steps();
    cuts += history.cuts();
    exact_cuts += history.exact_cuts();
  }
  void expect_everything_happened() const {
    EXPECT_GT(outputs, 100);
    EXPECT_GT(sum.prefetched_bytes, 0);
    EXPECT_GT(sum.streamed_bytes, sum.prefetched_bytes) << "prefetches are streamed too";
    EXPECT_GT(sum.prefetched_bytes, sum.wasted_prefetch_bytes);
    EXPECT_GT(sum.left_bytes, 0);
    EXPECT_GT(sum.arrived_bytes, 0);
    EXPECT_GT(sum.compressed_pages, 0);
    EXPECT_GT(sum.verified_pages, 0);
    EXPECT_GT(sum.busy, 0);
    EXPECT_GT(exact_cuts, cuts / 2);
  }
};

template <typename World>
void run(World& world, const HistoryOptions& options, Tally& tally) {
  SCOPED_TRACE(options.seed);
  History history(world.device, options);
  history.run();
  for (const Finding& finding : world.device.findings()) ADD_FAILURE() << finding.message;
  tally.add(history);
}

TEST(KvCache, RandomHistoriesOnRealThreads) {
  Tally tally;
  for (std::uint64_t seed = 1; seed <= 40 && !HasFailure(); ++seed) {
    Checked<Host> world;
    run(world, {.seed = seed}, tally);
  }
  tally.expect_everything_happened();
}

TEST(KvCache, RandomHistoriesInVirtualTime) {
  Tally tally;
  for (std::uint64_t seed = 1000; seed < 1060 && !HasFailure(); ++seed) {
    Checked<JitteredSim> world;
    run(world, {.seed = seed, .window = seed % 3 == 0 ? 50 : 0}, tally);
  }
  tally.expect_everything_happened();
}

struct Faulty {
  explicit Faulty(std::uint64_t seed)
      : faults(inner.device,
               {.seed = seed, .busy = 0.05, .fail = 0.01, .late = 0.05, .lost = 0.003}),
        device(faults) {}
  Sim inner;
  FaultDevice faults;
  CheckingDevice device;
};

TEST(KvCache, FaultsCostStepsButNeverGiveAWrongOutput) {
  Tally tally;
  for (std::uint64_t seed = 2000; seed < 2040 && !HasFailure(); ++seed) {
    Faulty world(seed);
    run(world, {.seed = seed, .faults = true}, tally);
  }
  tally.expect_everything_happened();
  EXPECT_GT(tally.failed_steps, 0);
  EXPECT_GT(tally.sum.failed_groups, 0);
  EXPECT_GT(tally.sum.timeouts, 0);
  EXPECT_GT(tally.sum.lost_tokens, 0);
}

}  // namespace
}  // namespace modalkv
