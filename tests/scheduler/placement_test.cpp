#include "scheduler/placement.hpp"

#include <gtest/gtest.h>

#include <numeric>
#include <random>
#include <string>

#include "tests/scheduler/sample_machine.hpp"

namespace modalkv {
namespace {

constexpr std::size_t kPlanned = 0, kHeld = 1;

// Five layers, the first of them held high: 800 + 200 tokens, the 800 compressible to 544 bytes.
class PlacementTest : public testing::Test {
 protected:
  PlacementTest() {
    policy_.places = {.resident = true, .streamed = true, .cpu = true};
    policy_.high_first_layers = 1;
    problem_.cost = &cost_;
    problem_.policy = &policy_;
    problem_.layers = 5;
    problem_.compute = {.before_attention_ns = 100,
                        .fresh_attention_ns = 20,
                        .after_attention_ns = 300,
                        .step_ns = 1'000};
    problem_.demand.groups[0] = {.tokens = 200, .high_bytes = 2048};
    problem_.demand.groups[1] = {.tokens = 800, .high_bytes = 2048, .low_bytes = 544};
    problem_.demand.groups[2] = {.kind = LayerKind::held_high, .tokens = 1000, .high_bytes = 2048};
    problem_.demand.group_count = 3;
  }

  // The budget resident; of the others a quarter each resident, streamed and on the CPU, all
  // compressed, and a quarter streamed in 16 bits; held layers half streamed.
  static Placement mixed() {
    Placement placement{.staging_slots = 3};
    placement.shares[0] = {1, 0, 0, 0, 0, 0};
    placement.shares[1] = {0, 0.25, 0.25, 0.25, 0, 0.25};
    placement.shares[2] = {0.5, 0, 0.5, 0, 0, 0};
    return placement;
  }

  CostModel cost_{sample_model(), sample_hardware()};
  PrecisionPolicy policy_{};
  StepProblem problem_{};
};

TEST_F(PlacementTest, LayersAreHeldHighAtTheEnds) {
  policy_.high_last_layers = 2;
  EXPECT_EQ(problem_.layers_of(LayerKind::held_high), 3);
  EXPECT_EQ(problem_.layers_of(LayerKind::planned), 2);
  for (int layer = 0; layer < 5; ++layer)
    EXPECT_EQ(problem_.kind_of(layer) == LayerKind::planned, layer == 1 || layer == 2) << layer;
}

TEST_F(PlacementTest, LoadsAndMemoryAddUp) {
  const LayerLoads loads = layer_loads(problem_, mixed());
  EXPECT_EQ(loads[kPlanned].resident_bytes, 200 * 2048 + 200 * 544);
  EXPECT_EQ(loads[kPlanned].streamed_high_bytes, 200 * 2048);
  EXPECT_EQ(loads[kPlanned].streamed_low_bytes, 200 * 544);
  EXPECT_EQ(loads[kPlanned].cpu_bytes, 200 * 544);
  EXPECT_EQ(loads[kHeld].resident_bytes, 500 * 2048);
  EXPECT_EQ(loads[kHeld].streamed_high_bytes, 500 * 2048);

  const Bytes planned_host = 200 * 2048 + 2 * 200 * 544, held_host = 500 * 2048;
  const MemoryUse use = memory_use(problem_, loads, 3);
  EXPECT_EQ(use.resident_bytes, 4 * (200 * 2048 + 200 * 544) + 500 * 2048);
  EXPECT_EQ(use.staging_bytes, 3 * 500 * 2048) << "slots as large as the largest streamed layer";
  EXPECT_EQ(use.host_bytes, 4 * planned_host + held_host);
  EXPECT_EQ(streamed_bytes(problem_, loads), 4 * 200 * (2048 + 544) + held_host);

  problem_.device_budget_bytes = use.device_bytes();
  problem_.host_budget_bytes = use.host_bytes;
  EXPECT_TRUE(placement_fits(problem_, mixed()));
  --problem_.device_budget_bytes;
  EXPECT_FALSE(placement_fits(problem_, mixed()));
  ++problem_.device_budget_bytes;
  --problem_.host_budget_bytes;
  EXPECT_FALSE(placement_fits(problem_, mixed()));
}

TEST_F(PlacementTest, TimesFollowTheBytes) {
  problem_.decode_share = 0.5;
  problem_.stored_share = 0.75;
  const auto times = layer_times(problem_, layer_loads(problem_, mixed()));
  const LayerTimes& planned = times[kPlanned];
  EXPECT_EQ(planned.before_attention_ns, 100);
  EXPECT_EQ(planned.after_attention_ns, 300);
  EXPECT_EQ(planned.attend_resident_ns, 20 + cost_.attend_ns(100 * (2048 + 544)));
  EXPECT_EQ(planned.attend_streamed_ns, cost_.attend_ns(100 * (2048 + 544)));
  EXPECT_EQ(planned.copy_ns,
            cost_.h2d_ns(150 * 2048, 65536) + cost_.h2d_ns(150 * 544, 8 * 16 * 544));
  EXPECT_EQ(planned.cpu_ns, cost_.cpu_attend_ns(150 * 544));
  EXPECT_EQ(times[kHeld].copy_ns, cost_.h2d_ns(375 * 2048, 65536));
  EXPECT_EQ(times[kHeld].cpu_ns, 0);
}

TEST_F(PlacementTest, AResidentStepIsTheSumOfItsParts) {
  const Placement first = first_choice(problem_);
  EXPECT_EQ(steady_step_ns(problem_, first),
            5 * (100 + 20 + 300 + cost_.attend_ns(1000 * 2048)) + 1'000);
}

TEST_F(PlacementTest, TheFirstChoiceKeepsWhatIsCompressedAndHonoursPlaces) {
  problem_.demand.groups[1].encoded = 300;
  const auto split = [&](std::size_t group) {
    return split_tokens(problem_.demand.groups[group], first_choice(problem_).shares[group]);
  };
  EXPECT_EQ(split(0), (TokenSplit{200, 0, 0, 0, 0, 0}));
  EXPECT_EQ(split(1), (TokenSplit{500, 300, 0, 0, 0, 0}));
  policy_.places.resident = false;
  EXPECT_EQ(split(1), (TokenSplit{0, 0, 500, 300, 0, 0}));
  EXPECT_EQ(split(2), (TokenSplit{0, 0, 1000, 0, 0, 0}));
}

TEST_F(PlacementTest, SplitsLoseNoTokenAndKeepToTheirShares) {
  for (std::uint64_t seed = 1; seed <= 2000; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    std::mt19937_64 random(seed);
    const DemandGroup group{.tokens = static_cast<Tokens>(random() % 1000)};
    Shares shares{};
    double sum = 0;
    for (double& share : shares) sum += share = static_cast<double>(random() % 4);
    if (sum == 0) sum = shares[0] = 1;
    for (double& share : shares) share /= sum;
    const TokenSplit split = split_tokens(group, shares);
    ASSERT_EQ(std::accumulate(split.begin(), split.end(), Tokens{0}), group.tokens);
    for (std::size_t a = 0; a < split.size(); ++a) {
      const double exact = shares[a] * static_cast<double>(group.tokens);
      ASSERT_NEAR(static_cast<double>(split[a]), exact, 1.0 + 1e-5);
      ASSERT_TRUE(shares[a] > 0 || split[a] == 0);
    }
  }
}

TEST_F(PlacementTest, TheMostCompactFormTakesTheLeastGpuMemory) {
  const Bytes compact = 4 * (200 * 2048 + 800 * 544) + 1000 * 2048;
  problem_.device_budget_bytes = compact;
  const auto resident = most_compact(problem_);
  ASSERT_TRUE(resident);
  const MemoryUse use = memory_use(problem_, layer_loads(problem_, *resident), 2);
  EXPECT_EQ(use.device_bytes(), compact);
  EXPECT_EQ(use.host_bytes, 0);

  --problem_.device_budget_bytes;
  EXPECT_FALSE(most_compact(problem_)) << "no host memory";
  problem_.host_budget_bytes = 2 * compact;
  const auto on_host = most_compact(problem_);
  ASSERT_TRUE(on_host);
  EXPECT_EQ(memory_use(problem_, layer_loads(problem_, *on_host), 2).device_bytes(), 0)
      << "CPU attention needs no staging";
  policy_.places = {.resident = true};
  EXPECT_FALSE(most_compact(problem_)) << "nothing may leave the GPU";
}

}  // namespace
}  // namespace modalkv
