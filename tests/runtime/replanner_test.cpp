#include "runtime/replanner.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "runtime/step_clock.hpp"
#include "scheduler/batch_demand.hpp"
#include "scheduler/policies.hpp"
#include "tests/scheduler/sample_machine.hpp"

namespace modalkv {
namespace {

PrecisionPolicy streaming_policy() {
  PrecisionPolicy policy;
  policy.places = {true, true, false};
  return policy;
}

// With two staging slots of what is streamed of a layer, half of the KV fits the device.
RunningBatch tight_batch() {
  const Bytes kv_bytes = 16 * 4000 * 4 * 2 * kKiB;
  return {16 * 3000, 16 * 1000, 16, kv_bytes * 3 / 4, kv_bytes * 2};
}

// Steps of the batch as `machine` would take them, until a plan is asked for.
bool run_on(Replanner& replanner, const HardwareProfile& machine, const Placement& placement,
            const RunningBatch& batch, int steps) {
  const PrecisionPolicy policy = streaming_policy();
  const ModelGeometry model = sample_model();
  const CostModel cost(model, machine);
  StepProblem problem = BatchDemand(model, policy, cost, 1)
                            .problem({batch.text + batch.visual, 0, 0, batch.text + batch.visual});
  problem.compute =
      cost.compute({.decode_tokens = batch.sequences, .sampled_tokens = batch.sequences});
  const Nanos step_ns = steady_step_ns(problem, placement);
  for (int i = 0; i < steps; ++i)
    if (replanner.observe(step_ns, batch)) return true;
  return false;
}

TEST(Replanner, LeavesAPlanAloneThatPredictsWell) {
  Replanner replanner(streaming_policy());
  const RunningBatch batch = tight_batch();
  const auto planned = replanner.plan(sample_model(), sample_hardware(), batch);
  ASSERT_TRUE(planned.has_value());
  EXPECT_FALSE(run_on(replanner, sample_hardware(), planned->placement, batch, 1000));
  EXPECT_EQ(replanner.predicted_ns(), planned->plan.step_ns);
  EXPECT_EQ(replanner.counts().drifted, 0);
}

TEST(Replanner, WithoutALinkMeasureItFindsOneFactorThatExplainsTheSteps) {
  for (const double factor : {0.25, 0.6, 1.7, 5.0}) {
    SCOPED_TRACE(factor);
    Replanner replanner(streaming_policy());
    const RunningBatch batch = tight_batch();
    const auto planned = replanner.plan(sample_model(), sample_hardware(), batch);
    ASSERT_TRUE(planned.has_value());
    const HardwareProfile machine = scaled(sample_hardware(), {factor, factor, factor});
    ASSERT_TRUE(run_on(replanner, machine, planned->placement, batch, 100));
    const auto again = replanner.replan(batch, {});
    ASSERT_TRUE(again.has_value());
    EXPECT_NEAR(std::log(replanner.factors().gpu / factor), 0, 0.02);
    EXPECT_FALSE(run_on(replanner, machine, again->placement, batch, 2000)) << "it is cured";
    EXPECT_EQ(replanner.counts().drifted, 1);
    EXPECT_NE(replanner.history().find("asked for"), std::string::npos);
    EXPECT_NE(replanner.history().find("drift (steps take"), std::string::npos);
  }
}

// A slow link is told from a slow machine where copies were measured, and planned for.
TEST(Replanner, AMeasuredLinkChangesTheLinkAlone) {
  Replanner replanner(streaming_policy());
  const RunningBatch batch = tight_batch();
  const auto planned = replanner.plan(sample_model(), sample_hardware(), batch);
  ASSERT_TRUE(planned.has_value());
  const HardwareProfile machine = scaled(sample_hardware(), {1, 0.4, 1});
  const CostModel cost(sample_model(), machine);
  const LinkMeasure link{100 * kMiB, 100, cost.h2d_ns(100 * kMiB, kMiB)};
  ASSERT_TRUE(run_on(replanner, machine, planned->placement, batch, 100));
  ASSERT_TRUE(replanner.replan(batch, link).has_value());
  EXPECT_NEAR(replanner.factors().link, 0.4, 0.01);
  EXPECT_NE(replanner.history().find("link measured at 0.4"), std::string::npos)
      << replanner.history();
}

TEST(Replanner, WhereNothingFitsThePlanStays) {
  Replanner replanner(streaming_policy());
  const RunningBatch batch = tight_batch();
  RunningBatch too_much = batch;
  too_much.device_budget_bytes = too_much.host_budget_bytes = kMiB;
  EXPECT_FALSE(replanner.plan(sample_model(), sample_hardware(), too_much).has_value());
  EXPECT_FALSE(replanner.has_planned());
  EXPECT_FALSE(replanner.observe(kSecond, batch)) << "there is nothing to compare with";
  ASSERT_TRUE(replanner.plan(sample_model(), sample_hardware(), batch).has_value());
  EXPECT_EQ(replanner.counts().failed, 1);
  EXPECT_NE(replanner.history().find("nothing fits"), std::string::npos);
}

TEST(Replanner, HistoryIsBounded) {
  Replanner replanner(streaming_policy());
  for (int i = 0; i < 40; ++i) replanner.plan(sample_model(), sample_hardware(), tight_batch());
  const std::string history = replanner.history();
  EXPECT_EQ(std::count(history.begin(), history.end(), '\n'), 16);
  EXPECT_NE(history.find("plan 40 "), std::string::npos);
}

// A step's layers and the ends of their attentions, in virtual time.
class Clocked {
 public:
  explicit Clocked(int layers) : clock(layers) {}
  void attend(int layer, Nanos at_ns, Nanos end_ns, bool decodes = true,
              Status status = Status::ok) {
    ends.push_back({{ends.size() + 1}, status, end_ns});
    clock.attended(layer, decodes, at_ns, ends.back().ticket);
  }
  std::vector<Nanos> times() {
    std::vector<Nanos> all;
    while (const auto time = clock.next([&](Ticket ticket) -> std::optional<Completion> {
      for (const Completion& end : ends)
        if (end.ticket == ticket && end.at_ns >= 0) return end;
      return {};
    }))
      all.push_back(*time);
    return all;
  }

  StepClock clock;
  std::vector<Completion> ends;
};

using Times = std::vector<Nanos>;

TEST(StepClock, ADecodeStepIsFromItsFirstAttentionToTheEndOfItsLast) {
  Clocked steps(2);
  steps.attend(0, 100, 150);
  EXPECT_EQ(steps.times(), Times{});
  steps.attend(1, 160, 210);
  steps.attend(0, 300, 310);
  steps.attend(1, 320, 400);
  EXPECT_EQ(steps.times(), (Times{110, 100}));
  EXPECT_EQ(steps.times(), Times{});
}

TEST(StepClock, LayersMayBeAttendedToInParts) {
  Clocked steps(2);
  for (const int layer : {0, 0, 1, 1}) steps.attend(layer, 100 + 100 * layer, 150 + 100 * layer);
  steps.ends[3].at_ns = 270;
  EXPECT_EQ(steps.times(), Times{170});
}

TEST(StepClock, PrefillFailedAndUnfinishedStepsAreNotCounted) {
  Clocked steps(2);
  steps.attend(0, 100, 150, false);
  steps.attend(1, 160, 200);
  steps.attend(0, 300, 350);
  steps.attend(1, 360, 400, true, Status::cancelled);
  steps.attend(0, 500, 550);
  steps.attend(0, 600, 610);  // in parts, or begun again: it counts from its first attention
  steps.attend(1, 620, 650);
  steps.attend(1, 700, -1);  // and it goes on
  EXPECT_EQ(steps.times(), Times{});
  steps.ends.back().at_ns = 710;
  EXPECT_EQ(steps.times(), Times{210});
}

TEST(StepClock, OrdersThatAreNoStepAreIgnored) {
  Clocked steps(3);
  for (const int layer : {1, 2, 0, 2, 0, 1, 0, 1, 2}) steps.attend(layer, 10, 20);
  EXPECT_EQ(steps.times(), Times{10}) << "0, 1, 2 at the end";
  Clocked one(1);
  for (int i = 0; i < 3; ++i) one.attend(0, 10 * i, 10 * i + 7);
  EXPECT_EQ(one.times(), (Times{7, 7, 7}));
}

TEST(StepClock, StepsWhoseEndIsNeverToldAreForgotten) {
  Clocked steps(1);
  for (int i = 0; i < 5; ++i) steps.attend(0, 0, -1);
  for (int i = 0; i < 16; ++i) steps.attend(0, 10, 20);
  EXPECT_EQ(steps.times().size(), 16u);
}

}  // namespace
}  // namespace modalkv
