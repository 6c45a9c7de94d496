#include "runtime/step_timer.hpp"

#include <gtest/gtest.h>

#include "scheduler/batch_demand.hpp"
#include "tests/runtime/small_world.hpp"

namespace modalkv {
namespace {

using namespace small_world;

class StepTimerTest : public testing::Test {
 protected:
  // 1,000 tokens decoded by 8 sequences; a share of them comes over the link in every step.
  StepTimerTest() { problem_.compute = cost_.compute({.decode_tokens = 8, .sampled_tokens = 8}); }
  static Placement streaming(double streamed) {
    Placement placement;
    for (Shares& shares : placement.shares) {
      shares[static_cast<std::size_t>(Action::resident_high)] = 1 - streamed;
      shares[static_cast<std::size_t>(Action::streamed_high)] = streamed;
    }
    return placement;
  }
  static Nanos duration(const StepRecord& record) { return record.end_ns - record.begin_ns; }

  ModelGeometry model_ = model();
  CostModel cost_{model_, machine()};
  PrecisionPolicy policy_ = policy("fp16-offload");
  BatchDemand demand_{model_, policy_, cost_, 0.9};
  StepProblem problem_ = demand_.problem({1000, 0, 0, 1000});
  StepTimer timer_;
};

TEST_F(StepTimerTest, StepsFollowEachOther) {
  const StepRecord first = timer_.run(problem_, streaming(0), {});
  const StepRecord second = timer_.run(problem_, streaming(0), {});
  EXPECT_EQ(first.begin_ns, 0);
  EXPECT_EQ(second.begin_ns, first.end_ns);
  EXPECT_EQ(duration(second), duration(first));
  EXPECT_EQ(duration(first), steady_step_ns(problem_, streaming(0)));
  EXPECT_EQ(first.h2d_bytes + first.d2h_bytes + first.host_kv_bytes, 0);
}

TEST_F(StepTimerTest, ManyStepsTakeWhatTheSteadyStepTakes) {
  for (const double streamed : {0.1, 0.5, 1.0}) {
    StepTimer timer;
    for (int i = 0; i < 5; ++i) timer.run(problem_, streaming(streamed), {});
    EXPECT_EQ(duration(timer.run(problem_, streaming(streamed), {})),
              steady_step_ns(problem_, streaming(streamed)));
  }
}

TEST_F(StepTimerTest, WhatIsLoadedForAStepIsNotThereBefore) {
  const Transfers load{.to_device_bytes = 64 * kMiB};
  const Nanos alone = duration(timer_.run(problem_, streaming(0), {}));
  const StepRecord loading = timer_.run(problem_, streaming(0), load);
  const Nanos copy_ns =
      cost_.h2d_ns(load.to_device_bytes, CostModel::piece_bytes(demand_.high_bytes()));
  const ComputeTimes& compute = problem_.compute;
  EXPECT_GE(duration(loading) + model_.layers,  // each layer's part is rounded
            copy_ns + compute.after_attention_ns + compute.step_ns)
      << "it cannot have begun with the step before";
  EXPECT_LT(duration(loading), copy_ns + alone) << "but it overlaps its own step";
  EXPECT_EQ(loading.h2d_bytes, load.to_device_bytes);
}

TEST_F(StepTimerTest, WhatLeavesTheGpuDelaysTheStepAfterNext) {
  const Transfers leave{.to_host_bytes = 256 * kMiB};
  const Nanos alone = duration(timer_.run(problem_, streaming(0), {}));
  EXPECT_EQ(duration(timer_.run(problem_, streaming(0), leave)), alone);
  const Nanos left_ns =
      alone + cost_.d2h_ns(leave.to_host_bytes, CostModel::piece_bytes(demand_.high_bytes()));
  EXPECT_EQ(timer_.run(problem_, streaming(0), {}).begin_ns, 2 * alone);
  const StepRecord waiting = timer_.run(problem_, streaming(0), {});
  EXPECT_NEAR(static_cast<double>(waiting.begin_ns), static_cast<double>(left_ns),
              0.01 * static_cast<double>(left_ns));
}

TEST_F(StepTimerTest, OppositeDirectionsSlowEachOtherDown) {
  const Transfers leave{.to_host_bytes = 64 * kMiB};
  for (int i = 0; i < 3; ++i) timer_.run(problem_, streaming(1), {});
  StepTimer both = timer_;
  const StepRecord one_way = timer_.run(problem_, streaming(1), {});
  const StepRecord two_ways = both.run(problem_, streaming(1), leave);
  EXPECT_GT(duration(two_ways), duration(one_way));
  EXPECT_GT(two_ways.h2d_busy_ns, one_way.h2d_busy_ns);
  EXPECT_EQ(two_ways.h2d_bytes, one_way.h2d_bytes);
}

}  // namespace
}  // namespace modalkv
