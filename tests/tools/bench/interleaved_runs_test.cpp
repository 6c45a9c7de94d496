// How timed runs and readings of the ceilings come together; how fast anything was decides nothing.
#include "tools/bench/interleaved_runs.hpp"

#include <gtest/gtest.h>

#include <vector>

#include "tools/bench/host_cpu.hpp"
#include "tools/bench/huge_buffer.hpp"

namespace modalkv {
namespace {

TEST(RoundTimes, FractionIsOfTheCeilingOfTheSameRound) {
  // Memory turns twice as fast after the first round, and so do the runs: 100 units in 50 ms are
  // half of 4000 a second, and so are 100 in 25 ms of 8000.
  const RoundTimes times{{{50, 50, 900}, {25, 25, 25}, {25, 1, 25}}};
  EXPECT_DOUBLE_EQ(times.fraction_of({"", {4000, 8000, 8000}}, 100), 0.5);
  EXPECT_EQ(times.all_ms(), (std::vector<double>{50, 50, 900, 25, 25, 25, 25, 1, 25}));
}

TEST(RoundTimes, RatioIsToThePartsOfTheSameRound) {
  const RoundTimes whole{{{12, 12, 99}, {22, 22, 22}, {33, 33, 33}}};
  const std::vector<RoundTimes> parts{{{{4, 4, 4}, {8, 8, 8}, {12, 12, 12}}},
                                      {{{6, 6, 6}, {12, 1, 12}, {18, 18, 18}}}};
  EXPECT_DOUBLE_EQ(whole.ratio_to_sum(parts), 1.1);
}

class InterleavedRuns : public testing::Test {
 protected:
  HugeBuffer memory_{kMiB};
  std::vector<int> cpus_{read_host_cpu().cpus.front()};
  ThreadTeam team_{cpus_};
  Ceilings ceilings_{team_, memory_.bytes(), kMiB / 4};
};

TEST_F(InterleavedRuns, EveryWorkloadRunsAsOftenAsAskedInTurn) {
  std::vector<std::int64_t> a, b;
  const std::vector<Workload> workloads{[&](std::int64_t turn) {
                                          a.push_back(turn);
                                          return Nanos{3'000'000};
                                        },
                                        [&](std::int64_t turn) {
                                          b.push_back(turn);
                                          return Nanos{5'000'000};
                                        }};
  const auto times = run_interleaved(workloads, ceilings_, 12);
  ASSERT_EQ(times.size(), 2u);
  EXPECT_EQ(times[0].all_ms(), std::vector<double>(12, 3.0));
  EXPECT_EQ(times[1].all_ms(), std::vector<double>(12, 5.0));
  // Two untimed runs of each, then five of a, five of b: never twice on the same copy in a row.
  EXPECT_EQ(a, (std::vector<std::int64_t>{0, 2, 4, 5, 6, 7, 8, 14, 15, 16, 17, 18, 24, 25}));
  EXPECT_EQ(b, (std::vector<std::int64_t>{1, 3, 9, 10, 11, 12, 13, 19, 20, 21, 22, 23, 26, 27}));
  // One reading a round.
  EXPECT_EQ(ceilings_.read_bytes().readings.size(), times[0].rounds_ms.size());
  EXPECT_EQ(ceilings_.copied_bytes().readings.size(), times[0].rounds_ms.size());
  EXPECT_EQ(ceilings_.operations_16bit().readings.size(), times[0].rounds_ms.size());
  for (const double reading : ceilings_.operations_8bit().readings) EXPECT_GT(reading, 0);
}

TEST_F(InterleavedRuns, ByDefaultThereAreEnoughForAMedian) {
  const Workload workload = [](std::int64_t) { return kMillisecond; };
  const auto times = run_interleaved({&workload, 1}, ceilings_, 0);
  EXPECT_GE(times[0].all_ms().size(), 25u);
  EXPECT_GE(times[0].rounds_ms.size(), 7u);
}

TEST(ThreadTeam, EveryThreadDoesItsPartOnceARound) {
  const std::vector<int> cpus(4, read_host_cpu().cpus.front());
  ThreadTeam team(cpus);
  std::vector<int> calls(4);
  for (int round = 1; round <= 50; ++round) {
    EXPECT_GE(team.run([&](int thread) { ++calls[static_cast<std::size_t>(thread)]; }), 0);
    EXPECT_EQ(calls, std::vector<int>(4, round));
  }
}

}  // namespace
}  // namespace modalkv
