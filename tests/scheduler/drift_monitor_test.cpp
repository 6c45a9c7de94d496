#include "scheduler/drift_monitor.hpp"

#include <gtest/gtest.h>

#include <random>
#include <vector>

#include "modalkv/error.hpp"

namespace modalkv {
namespace {

struct Observed {
  Nanos predicted_ns, actual_ns;
};

// At which steps it calls for another plan.
std::vector<std::size_t> alarms(const std::vector<Observed>& steps,
                                const DriftBounds& bounds = {}) {
  DriftMonitor monitor(bounds);
  std::vector<std::size_t> found;
  for (std::size_t i = 0; i < steps.size(); ++i)
    if (monitor.add(steps[i].predicted_ns, steps[i].actual_ns)) found.push_back(i);
  return found;
}

std::vector<Observed> random_steps(std::mt19937_64& random, int count, double least, double most) {
  std::uniform_real_distribution<double> ratio(least, most);
  std::vector<Observed> steps;
  for (int i = 0; i < count; ++i) {
    const auto predicted = static_cast<double>(1'000'000 + random() % 1'000'000);
    steps.push_back({static_cast<Nanos>(predicted), static_cast<Nanos>(predicted * ratio(random))});
  }
  return steps;
}

TEST(DriftMonitor, SaysNothingWhileStepsTakeWhatWasPredicted) {
  for (std::uint64_t seed = 1; seed <= 20; ++seed) {
    SCOPED_TRACE(seed);
    std::mt19937_64 random(seed);
    std::vector<Observed> steps = random_steps(random, 3000, 0.9, 1.1);
    for (Observed& step : steps) step.predicted_ns = 1'500'000;
    for (Observed& step : steps)
      step.actual_ns = 1'400'000 + static_cast<Nanos>(random() % 200'000);
    EXPECT_TRUE(alarms(steps).empty());
  }
}

TEST(DriftMonitor, SingleSlowStepsDoNotCount) {
  std::vector<Observed> steps(5000, {1000, 1050});
  for (std::size_t i = 0; i < steps.size(); i += 3) steps[i].actual_ns = 1'000'000;
  EXPECT_TRUE(alarms(steps).empty());
}

TEST(DriftMonitor, SlowerAndFasterStepsAreNoticedWithinAWindow) {
  for (const Nanos actual : {1400, 700}) {
    std::vector<Observed> steps(500, {1000, 1000});
    steps.resize(900, {1000, actual});
    const auto found = alarms(steps);
    ASSERT_FALSE(found.empty());
    EXPECT_GE(found[0], 500u);
    EXPECT_LT(found[0], 500u + 33u);
  }
}

TEST(DriftMonitor, OnlyRatiosMatter) {
  for (std::uint64_t seed = 1; seed <= 20; ++seed) {
    SCOPED_TRACE(seed);
    std::mt19937_64 random(seed);
    std::vector<Observed> steps = random_steps(random, 1500, 0.5, 2.2);
    const auto found = alarms(steps);
    for (Observed& step : steps) step.predicted_ns *= 1024, step.actual_ns *= 1024;
    EXPECT_EQ(alarms(steps), found);
    for (Observed& step : steps) std::swap(step.predicted_ns, step.actual_ns);
    EXPECT_EQ(alarms(steps), found) << "too fast is as far off as too slow";
  }
}

TEST(DriftMonitor, KeepsItsGapAndGoesOnEverMoreRarelyWhereNothingHelps) {
  for (std::uint64_t seed = 1; seed <= 20; ++seed) {
    SCOPED_TRACE(seed);
    std::mt19937_64 random(seed);
    const DriftBounds bounds{.window = 5, .min_gap = 40};
    const auto found = alarms(random_steps(random, 4000, 0.3, 3), bounds);
    for (std::size_t i = 1; i < found.size(); ++i) EXPECT_GE(found[i] - found[i - 1], 40u);
    const auto in_vain = alarms(std::vector<Observed>(4000, {1000, 2000}), bounds);
    EXPECT_EQ(in_vain, (std::vector<std::size_t>{4, 84, 244, 564, 1204, 2484}));
  }
}

TEST(DriftMonitor, IsCuredOnlyWellWithinItsBound) {
  // Between the bounds: drift goes on where it was, and does not begin where it was not.
  const DriftBounds bounds{.window = 1, .min_gap = 1};
  DriftMonitor monitor(bounds);
  EXPECT_FALSE(monitor.add(1000, 1200));
  EXPECT_FALSE(monitor.drifting());
  EXPECT_TRUE(monitor.add(1000, 1400));
  EXPECT_FALSE(monitor.add(1000, 1200));
  EXPECT_TRUE(monitor.drifting());
  EXPECT_TRUE(monitor.add(1000, 1200)) << "the gap has passed";
  EXPECT_FALSE(monitor.add(1000, 1050));
  EXPECT_FALSE(monitor.drifting());
  EXPECT_FALSE(monitor.add(1000, 1200));
  EXPECT_TRUE(monitor.add(1000, 1400)) << "after a cure the gap is short again";
}

TEST(DriftMonitor, ForgetsWhatWasMeasuredUnderAnotherPlan) {
  DriftMonitor monitor({.window = 10, .min_gap = 1});
  for (int i = 0; i < 9; ++i) EXPECT_FALSE(monitor.add(1000, 3000));
  monitor.forget();
  for (int i = 0; i < 50; ++i) EXPECT_FALSE(monitor.add(1000, 1000));
  EXPECT_EQ(monitor.actual_ns(), 1000);
}

TEST(DriftMonitor, RefusesBoundsThatMakeNoSense) {
  EXPECT_THROW(DriftMonitor({.enter = 1.05, .leave = 1.1}), Error);
  EXPECT_THROW(DriftMonitor({.leave = 0.9}), Error);
  EXPECT_THROW(DriftMonitor({.window = 0}), Error);
  EXPECT_THROW(DriftMonitor({.min_gap = 0}), Error);
}

}  // namespace
}  // namespace modalkv
