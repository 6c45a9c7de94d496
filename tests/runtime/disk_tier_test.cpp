#include "runtime/disk_tier.hpp"

#include <gtest/gtest.h>

#include "tests/runtime/disk_tier_pages.hpp"

namespace modalkv {
namespace {

TEST_F(DiskTiers, WhatWasStoredIsLoadedAlsoAfterARestart) {
  TierWorld& world = this->world(4);
  for (std::uint64_t unit = 0; unit < 3; ++unit) {
    EXPECT_FALSE(world.contains(unit, kPages));
    ASSERT_EQ(world.store(unit, kPages, unit), Status::ok);
    EXPECT_TRUE(world.contains(unit, kPages));
  }
  for (int life = 0; life < 2; ++life) {
    for (std::uint64_t unit = 0; unit < 3; ++unit)
      EXPECT_EQ(world.load(unit, kPages, unit), Status::ok);
    expect_exact(3, 3 * kPages);
    world.open();
    EXPECT_EQ(world.tier->counters().recovered_units, 3u);
  }
  EXPECT_TRUE(world.tier->idle());
}

TEST_F(DiskTiers, RecencySurvivesARestartAsTheOrderOfStoring) {
  TierWorld& world = this->world(3);
  for (const std::uint64_t unit : {7, 2, 5}) ASSERT_EQ(world.store(unit, kPages), Status::ok);
  world.open();
  ASSERT_EQ(world.store(9, kPages), Status::ok);
  EXPECT_FALSE(world.contains(7, kPages));
  EXPECT_TRUE(world.contains(2, kPages) && world.contains(5, kPages));
}

TEST_F(DiskTiers, MorePagesThanTheDiskTakesAtATime) {
  PageDiskConfig config = tier_disk(unit_bytes(500) / kBlockBytes);
  config.max_operations = 4;
  config.max_transfers = 2;
  TierWorld& world = opened(config);
  EXPECT_EQ(world.store(0, 500), Status::ok);
  EXPECT_EQ(world.load(0, 500), Status::ok);
  expect_exact(1, 500);
  EXPECT_EQ(world.tier->counters().stored_pages, 500u);
  EXPECT_EQ(world.tier->counters().loaded_bytes, world.tier->counters().stored_bytes);
}

TEST_F(DiskTiers, AFullDiskEvictsWhatWasUsedLeastRecently) {
  TierWorld& world = this->world(3);
  for (std::uint64_t unit = 0; unit < 3; ++unit) ASSERT_EQ(world.store(unit, kPages), Status::ok);
  ASSERT_EQ(world.load(0, kPages), Status::ok);
  ASSERT_EQ(world.store(3, kPages), Status::ok);
  EXPECT_FALSE(world.contains(1, 1));
  for (const std::uint64_t unit : {0, 2, 3}) EXPECT_EQ(world.load(unit, kPages), Status::ok);
  EXPECT_EQ(world.tier->counters().evicted_units, 1u);
  EXPECT_EQ(world.tier->counters().evicted_pages, kPages);
  EXPECT_EQ(world.tier->take_lost(), std::vector{tier_keys(1, 1)[0].content});
  EXPECT_TRUE(world.tier->take_lost().empty());
  expect_exact(3, 3 * kPages);
}

TEST_F(DiskTiers, EachPolicyMakesRoom) {
  using enum EvictionPolicy;
  for (const EvictionPolicy policy : {lru, tiny_lfu, cost_aware}) {
    TierWorld& world = this->world(3, {.policy = policy});
    for (std::uint64_t unit = 0; unit < 12; ++unit)
      ASSERT_EQ(world.store(unit, 1 + unit % kPages), Status::ok) << name(policy);
    EXPECT_GT(world.tier->counters().evicted_units, 0u);
    EXPECT_EQ(world.tier->usage().held_bytes, world.used_bytes());
  }
}

// Two sizes, so that what is free may lie in pieces that are too small.
TEST_F(DiskTiers, FreeBytesInPiecesAreNotEnough) {
  TierWorld& world = opened(tier_disk(8));
  const auto store = [&](std::uint64_t unit, std::uint64_t page) {
    const TierMemory job = TierMemory::filled({tier_key(unit, page)}, 0);
    return world.outcome(world.tier->store(job.pages, some_facts()));
  };
  for (std::uint64_t unit = 0; unit < 4; ++unit) ASSERT_EQ(store(unit, 0), Status::ok);
  for (const std::uint64_t unit : {1, 3}) {
    const TierMemory job = TierMemory::empty({tier_key(unit, 0)});
    ASSERT_EQ(world.outcome(world.tier->load(job.pages)), Status::ok);
  }
  ASSERT_EQ(store(4, 1), Status::ok);  // four blocks, and 0 and 2 do not lie side by side
  EXPECT_EQ(world.tier->counters().evicted_units, 3u);
  expect_exact(2, 2);
}

TEST_F(DiskTiers, TheIndexMakesRoomToo) {
  PageDiskConfig config = tier_disk(256);
  config.max_pages = 2 * kPages;
  TierWorld& world = opened(config);
  for (std::uint64_t unit = 0; unit < 3; ++unit) ASSERT_EQ(world.store(unit, kPages), Status::ok);
  EXPECT_FALSE(world.contains(0, kPages));
  EXPECT_EQ(world.store(4, 2 * kPages + 1), Status::no_space);
  expect_exact(2, 2 * kPages);
}

TEST_F(DiskTiers, RefusesWhatItCannotTake) {
  TierWorld& world = this->world(2, {.max_jobs = 2});
  EXPECT_EQ(world.store(0, 0), Status::rejected);
  EXPECT_EQ(world.load(0, 0), Status::rejected);
  EXPECT_EQ(world.load(0, 1), Status::rejected) << "not here";
  EXPECT_EQ(world.store(0, 2 * kPages + 1), Status::no_space) << "larger than the disk";
  EXPECT_EQ(world.tier->counters().no_space_jobs, 1u);
  TierMemory job = TierMemory::filled({tier_key(0, 0), tier_key(1, 0)}, 0);
  EXPECT_EQ(world.tier->store(job.pages, some_facts()).status, Status::rejected) << "two contents";
  job = TierMemory::filled({tier_key(0, 0), tier_key(0, 0)}, 0);
  EXPECT_EQ(world.tier->store(job.pages, some_facts()).status, Status::rejected) << "twice";
  job = TierMemory::filled(tier_keys(0, 2), 0);
  EXPECT_EQ(world.tier->store(job.pages, {0, {}, {}, -1}).status, Status::rejected);
  job.pages[1].memory = job.pages[1].memory.first(64);
  EXPECT_EQ(world.tier->store(job.pages, some_facts()).status, Status::rejected);
  EXPECT_TRUE(world.tier->idle());
  const TierMemory a = TierMemory::filled(tier_keys(1, 2), 0), b = a;
  EXPECT_EQ(world.tier->store(a.pages, some_facts()).status, Status::ok);
  EXPECT_EQ(world.tier->store(b.pages, some_facts()).status, Status::ok);
  EXPECT_EQ(world.tier->store(b.pages, some_facts()).status, Status::busy);
  EXPECT_FALSE(world.tier->idle());
  for (int i = 0; i < 2; ++i) EXPECT_EQ(world.tier->next(kLongWait)->status, Status::ok);
  EXPECT_FALSE(world.tier->next(0));
  EXPECT_TRUE(world.tier->idle());
  expect_exact(1, 2);
}

TEST_F(DiskTiers, AUnitGrowsByWhatItDoesNotHave) {
  TierWorld& world = this->world(2);
  ASSERT_EQ(world.store(0, 2, 1), Status::ok);
  ASSERT_EQ(world.store(0, kPages, 2), Status::ok);
  EXPECT_EQ(world.tier->counters().stored_pages, kPages) << "two were not written again";
  EXPECT_EQ(world.load(0, 2, 1), Status::ok);
  ASSERT_EQ(world.store(0, kPages, 3), Status::ok);
  EXPECT_EQ(world.tier->counters().stored_pages, kPages);
  expect_exact(1, kPages);
}

TEST_F(DiskTiers, AUnitThatIsHeldIsNotEvictedUntilItIsLetGo) {
  TierWorld& world = this->world(1);
  ASSERT_EQ(world.store(0, kPages), Status::ok);
  const ContentId content = tier_keys(0, kPages).front().content;
  const auto once = world.tier->hold(content), twice = world.tier->hold(content);
  ASSERT_TRUE(once && twice);
  EXPECT_EQ(world.store(1, kPages), Status::no_space);
  world.tier->let_go(*once);
  EXPECT_EQ(world.store(1, kPages), Status::no_space);
  EXPECT_TRUE(world.contains(0, kPages));
  world.tier->let_go(*twice);
  EXPECT_EQ(world.store(1, kPages), Status::ok);
  EXPECT_FALSE(world.contains(0, kPages));
  EXPECT_FALSE(world.tier->hold(content).has_value());
  world.tier->let_go(*once);  // of a unit that is gone
  expect_exact(1, kPages);
}

TEST_F(DiskTiers, AUnitBeingLoadedIsNotEvicted) {
  TierWorld& world = this->world(1);
  ASSERT_EQ(world.store(0, kPages), Status::ok);
  for (std::uint64_t round = 0; round < 20; ++round) {
    const TierMemory into = TierMemory::empty(tier_keys(round, kPages));
    const TierMemory from = TierMemory::filled(tier_keys(round + 1, kPages), 0);
    const TierStarted load = world.tier->load(into.pages);
    const TierStarted store = world.tier->store(from.pages, some_facts());
    ASSERT_EQ(load.status, Status::ok);
    ASSERT_EQ(store.status, Status::ok);
    EXPECT_TRUE(world.contains(round, kPages)) << "it is not leaving either";
    const auto first = world.tier->next(kLongWait), second = world.tier->next(kLongWait);
    ASSERT_TRUE(first && second);
    EXPECT_EQ(first->job, load.job) << "room comes only when it has been loaded";
    EXPECT_EQ(first->status, Status::ok);
    EXPECT_EQ(second->status, Status::ok);
    for (std::size_t i = 0; i < kPages; ++i) EXPECT_EQ(into.version(i), 0u);
    EXPECT_FALSE(world.contains(round, kPages));
  }
  expect_exact(1, kPages);
}

TEST_F(DiskTiers, ForgetLeavesNothing) {
  TierWorld& world = this->world(4);
  for (std::uint64_t unit = 0; unit < 4; ++unit) ASSERT_EQ(world.store(unit, kPages), Status::ok);
  const TierMemory into = TierMemory::empty(tier_keys(0, kPages));
  const TierMemory from = TierMemory::filled(tier_keys(5, kPages), 0), later = from;
  ASSERT_EQ(world.tier->load(into.pages).status, Status::ok);
  ASSERT_EQ(world.tier->store(from.pages, some_facts()).status, Status::ok);
  ASSERT_EQ(world.tier->store(later.pages, some_facts()).status, Status::ok);
  world.tier->forget();
  for (std::uint64_t unit = 0; unit < 6; ++unit) EXPECT_FALSE(world.contains(unit, 1));
  for (int i = 0; i < 3; ++i) EXPECT_EQ(world.tier->next(kLongWait)->status, Status::cancelled);
  EXPECT_EQ(world.store(0, kPages, 9), Status::ok) << "not before its old pages are gone";
  EXPECT_EQ(world.load(0, kPages, 9), Status::ok);
  expect_exact(1, kPages);
  world.tier->forget();
  expect_exact(0, 0);
  world.open();
  expect_exact(0, 0);
}

}  // namespace
}  // namespace modalkv
