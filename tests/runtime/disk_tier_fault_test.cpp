// A disk tier whose disk damages, fails, falls silent.
#include <gtest/gtest.h>

#include "tests/runtime/disk_tier_pages.hpp"

namespace modalkv {
namespace {

class DiskTierFaults : public DiskTiers {};

// Each page in turn.
TEST_F(DiskTierFaults, ADamagedPageTakesItsUnitAlong) {
  for (std::uint64_t damaged = 0; damaged < kPages; ++damaged) {
    TierWorld& world = this->world(2);
    ASSERT_EQ(world.store(1, kPages), Status::ok);
    ASSERT_EQ(world.store(0, kPages), Status::ok);
    world.close();
    const std::vector<std::byte> page = tier_page(tier_key(1, damaged), 0);
    ASSERT_TRUE(world.machine.flip({page.data() + 32, 64}));
    world.open();
    EXPECT_EQ(world.load(1, kPages), Status::checksum);
    EXPECT_FALSE(world.contains(1, 1));
    EXPECT_EQ(world.load(0, kPages), Status::ok);
    EXPECT_EQ(world.tier->counters().damaged_units, 1u);
    expect_exact(1, kPages);
    EXPECT_EQ(world.store(1, kPages, 5), Status::ok);
    EXPECT_EQ(world.load(1, kPages, 5), Status::ok);
  }
}

TEST_F(DiskTierFaults, APageThatIsDamagedInMemoryIsNotStoredNorAreTheOthers) {
  TierWorld& world = this->world(2);
  ASSERT_EQ(world.store(0, 2), Status::ok);
  TierMemory job = TierMemory::filled(tier_keys(0, kPages), 1);
  job.memory[4][100] ^= std::byte{1};
  EXPECT_EQ(world.outcome(world.tier->store(job.pages, some_facts())), Status::checksum);
  EXPECT_TRUE(world.contains(0, 2));
  for (std::uint64_t page = 2; page < kPages; ++page)
    EXPECT_FALSE(world.tier->contains(std::vector{tier_key(0, page)}));
  expect_exact(1, 2);
  EXPECT_EQ(world.load(0, 2), Status::ok);
}

TEST_F(DiskTierFaults, WhatFailsLeavesNothing) {
  for (const auto& [plan, expected] :
       {std::pair<BlockFaultPlan, Status>{{.write_error = 0.3}, Status::io_error},
        {{.no_space = 0.3}, Status::no_space},
        {{.sync_error = 1}, Status::io_error}}) {
    TierWorld& world = this->world(2, {}, plan);
    EXPECT_EQ(world.store(0, 2 * kPages), expected);
    EXPECT_FALSE(world.contains(0, 1));
    const bool is_full = expected == Status::no_space;
    EXPECT_EQ(world.tier->counters().failed_jobs, is_full ? 0u : 1u);
    EXPECT_EQ(world.tier->counters().no_space_jobs, is_full ? 1u : 0u);
    expect_exact(0, 0);
  }
}

TEST_F(DiskTierFaults, AVictimThatCannotBeErasedStays) {
  TierWorld& world = this->world(2);
  for (std::uint64_t unit = 0; unit < 2; ++unit) ASSERT_EQ(world.store(unit, 1), Status::ok);
  for (std::uint64_t unit = 2; unit < 4; ++unit)
    ASSERT_EQ(world.store(unit, kPages - 1), Status::ok);
  world.machine.fail_log(1, 0);
  EXPECT_EQ(world.store(4, kPages), Status::no_space) << "what the log said";
  EXPECT_FALSE(world.contains(4, 1));
  EXPECT_TRUE(world.contains(3, kPages - 1));
  EXPECT_GT(world.tier->counters().failed_erasures, 0u);
  EXPECT_TRUE(world.settle());
  EXPECT_EQ(world.tier->usage().held_bytes, world.used_bytes());
  EXPECT_EQ(world.store(4, kPages), Status::ok);
  EXPECT_EQ(world.load(4, kPages), Status::ok);
  EXPECT_EQ(world.tier->usage().held_bytes, world.used_bytes());
}

TEST_F(DiskTierFaults, ADiskThatCannotBeWrittenIsStillRead) {
  TierWorld& world = this->world(2);
  for (std::uint64_t unit = 0; unit < 2; ++unit) ASSERT_EQ(world.store(unit, kPages), Status::ok);
  world.machine.fail_log(0, 1);  // for good: nobody knows what it holds
  for (std::uint64_t unit = 2; unit < 9; ++unit)
    EXPECT_EQ(world.store(unit, kPages), Status::io_error);
  for (std::uint64_t unit = 0; unit < 2; ++unit) EXPECT_EQ(world.load(unit, kPages), Status::ok);
  EXPECT_EQ(world.tier->usage().held_bytes, world.used_bytes());
}

// Nobody knows what comes of it, so its pages count no more, and are asked after until they are
// gone.
TEST_F(DiskTierFaults, AnErasureThatTimesOutIsSeenThrough) {
  PageDiskConfig config = tier_disk(unit_bytes(kPages) / kBlockBytes);
  config.timeout_ns = 300 * kMillisecond;
  TierWorld& world = opened(config);
  ASSERT_EQ(world.store(0, kPages), Status::ok);
  {
    const auto held = world.machine.hold_log();
    EXPECT_EQ(world.store(1, kPages), Status::timeout);
    EXPECT_FALSE(world.contains(0, 1));
    EXPECT_EQ(world.tier->usage().erasing_pages, kPages);
  }
  expect_exact(0, 0);
  EXPECT_EQ(world.store(1, kPages), Status::ok);
  EXPECT_EQ(world.load(1, kPages), Status::ok);
}

TEST_F(DiskTierFaults, EveryJobEndsWhereTheDiskTellsNothing) {
  PageDiskConfig config = tier_disk(256);
  config.max_operations = 8;
  config.max_transfers = 4;
  config.timeout_ns = 10 * kMillisecond;
  TierWorld& world = opened(config, {.stall_ns = 50 * kMillisecond}, {.lost = 1});
  for (std::uint64_t unit = 0; unit < 4; ++unit)
    EXPECT_EQ(world.store(unit % 2, 2 * kPages), Status::timeout);
  EXPECT_FALSE(world.contains(0, 1));
  EXPECT_TRUE(world.tier->idle());
  EXPECT_EQ(world.tier->usage().held_bytes, 0);
  EXPECT_GE(world.tier->usage().erasing_bytes, world.used_bytes());
}

}  // namespace
}  // namespace modalkv
