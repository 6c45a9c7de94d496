#include "scheduler/kv_state.hpp"

#include <gtest/gtest.h>

#include <random>
#include <string>

namespace modalkv {
namespace {

// One group of 1,000 tokens on four layers: 2,048 bytes a token and layer, 544 compressed.
class KvStateTest : public testing::Test {
 protected:
  KvStateTest() {
    problem_.policy = &policy_;
    problem_.layers = 4;
    problem_.demand.groups[0] = {.tokens = 1000, .high_bytes = 2048, .low_bytes = 544};
    problem_.demand.group_count = 1;
  }

  Migration settle(const Shares& shares) {
    Placement placement;
    placement.shares[0] = shares;
    return state_.settle(problem_, placement);
  }
  Tokens encoded() {
    state_.annotate(problem_.demand);
    return problem_.demand.groups[0].encoded;
  }
  void expect_moves(const Migration& migration, Bytes to_host, Bytes to_device, Bytes encode) {
    EXPECT_EQ(migration.to_host_bytes, to_host);
    EXPECT_EQ(migration.to_device_bytes, to_device);
    EXPECT_EQ(migration.encode_bytes, encode);
    EXPECT_EQ(migration.empty(), to_host + to_device + encode == 0);
  }

  PrecisionPolicy policy_{};
  StepProblem problem_{};
  KvState state_;
};

constexpr Shares shares(Action action, double share = 1, Action other = Action::resident_high) {
  Shares result{};
  result[static_cast<std::size_t>(other)] = 1 - share;
  result[static_cast<std::size_t>(action)] += share;
  return result;
}

TEST_F(KvStateTest, StayingInGpuMemoryMovesNothing) {
  expect_moves(settle(shares(Action::resident_high)), 0, 0, 0);
  EXPECT_EQ(encoded(), 0);
}

TEST_F(KvStateTest, WhatIsCompressedIsReadAndWrittenOnce) {
  expect_moves(settle(shares(Action::resident_low, 0.25)), 0, 0, 250 * (2048 + 544) * 4);
  EXPECT_EQ(encoded(), 250);
  expect_moves(settle(shares(Action::resident_low, 0.25)), 0, 0, 0);
  expect_moves(settle(shares(Action::resident_low, 0.75)), 0, 0, 500 * (2048 + 544) * 4);
}

TEST_F(KvStateTest, OnlyCompressedBytesCrossTheLink) {
  expect_moves(settle(shares(Action::streamed_low, 0.5)), 500 * 544 * 4, 0, 500 * (2048 + 544) * 4);
  expect_moves(settle(shares(Action::resident_low, 0.5)), 0, 500 * 544 * 4, 0);
}

TEST_F(KvStateTest, StreamedAndAttendedOnTheCpuAreTheSamePlace) {
  expect_moves(settle(shares(Action::streamed_high, 0.5)), 500 * 2048 * 4, 0, 0);
  expect_moves(settle(shares(Action::cpu_high, 0.5)), 0, 0, 0);
  expect_moves(settle(shares(Action::resident_high)), 0, 500 * 2048 * 4, 0);
}

TEST_F(KvStateTest, HeldLayersCountOnTheirOwn) {
  policy_.high_last_layers = 1;
  problem_.demand.groups[1] = {
      .kind = LayerKind::held_high, .tokens = 100, .high_bytes = 2048, .low_bytes = 0};
  problem_.demand.group_count = 2;
  Placement placement;
  placement.shares[0] = placement.shares[1] = shares(Action::streamed_high);
  expect_moves(state_.settle(problem_, placement), (3 * 1000 + 1 * 100) * 2048, 0, 0);
}

TEST_F(KvStateTest, WhatLeavesTakesItsShareOfEverything) {
  settle(shares(Action::streamed_low, 0.5));
  state_.remove({1000}, {400});
  problem_.demand.groups[0].tokens = 600;
  EXPECT_EQ(encoded(), 300);
  expect_moves(settle(shares(Action::streamed_low, 0.5)), 0, 0, 0);
  state_.remove({600}, {600});
  problem_.demand.groups[0].tokens = 50;
  EXPECT_EQ(encoded(), 0);
}

TEST_F(KvStateTest, WhatArrivesCompressedIsNotCompressedAgain) {
  state_.add_encoded(0, 300);
  EXPECT_EQ(encoded(), 300);
  expect_moves(settle(shares(Action::resident_low, 0.5)), 0, 0, 200 * (2048 + 544) * 4);
}

TEST_F(KvStateTest, NoMoreIsCompressedThanThereIs) {
  state_.add_encoded(0, 3000);
  EXPECT_EQ(encoded(), 1000);
}

// The common step: nothing changes, so nothing may be compressed, whatever the shares round to.
TEST_F(KvStateTest, TheFirstChoiceCompressesNothing) {
  for (Tokens tokens = 1; tokens <= 400; ++tokens)
    for (Tokens compressed = 0; compressed <= tokens; ++compressed) {
      KvState state;
      state.add_encoded(0, compressed);
      problem_.demand.groups[0].tokens = tokens;
      state.annotate(problem_.demand);
      const Migration migration = state.settle(problem_, first_choice(problem_));
      ASSERT_TRUE(migration.empty()) << compressed << " of " << tokens;
      state.annotate(problem_.demand);
      ASSERT_EQ(problem_.demand.groups[0].encoded, compressed) << "of " << tokens;
    }
}

// However places change, every byte that comes back went out before.
TEST_F(KvStateTest, BytesAreConservedUnderRandomPlacements) {
  for (std::uint64_t seed = 1; seed <= 200; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    std::mt19937_64 random(seed);
    KvState state;
    Bytes on_host = 0;
    Placement placement;
    for (int change = 0; change < 20; ++change) {
      Shares& shares = placement.shares[0];
      double left = 1;
      for (double& share : shares) {
        share = left * static_cast<double>(random() % 5) / 4;
        left -= share;
      }
      shares[1] += left;
      const Migration migration = state.settle(problem_, placement);
      on_host += migration.to_host_bytes - migration.to_device_bytes;
      const LayerLoads loads = layer_loads(problem_, placement);
      ASSERT_EQ(on_host, 4 * (loads[0].streamed_bytes() + loads[0].cpu_bytes));
      ASSERT_TRUE(state.settle(problem_, placement).empty());
    }
  }
}

}  // namespace
}  // namespace modalkv
