// Units of small pages for a disk tier over a disk in memory; every byte follows from the key and a
// version.
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <optional>
#include <random>
#include <vector>

#include "offload/fault_block_file.hpp"
#include "offload/page_seal.hpp"
#include "runtime/disk_tier.hpp"
#include "tests/offload/disk_pages.hpp"
#include "tests/offload/memory_disk.hpp"

namespace modalkv {

/// Two and four blocks on disk.
inline PageShape two_blocks() {
  return {16, 1, 64, both(fp16())};
}
inline PageShape four_blocks() {
  return {48, 2, 64, both(int8_token_head())};
}

inline PageKey tier_key(std::uint64_t unit, std::uint64_t page) {
  return {{{unit, 1, 2, 3}},
          static_cast<std::int32_t>(page / 2),
          static_cast<std::int32_t>(page % 2),
          page % 2 == 0 ? two_blocks() : four_blocks()};
}

inline std::vector<PageKey> tier_keys(std::uint64_t unit, std::uint64_t pages) {
  std::vector<PageKey> keys;
  for (std::uint64_t page = 0; page < pages; ++page) keys.push_back(tier_key(unit, page));
  return keys;
}

inline std::vector<std::byte> tier_page(const PageKey& key, std::uint64_t version) {
  std::vector<std::byte> page(static_cast<std::size_t>(page_bytes(key.shape)));
  std::mt19937_64 random(PageKeyHash{}(key) + version);
  for (std::size_t at = 0; at < page.size(); at += 8) {
    const std::uint64_t word = random();
    std::memcpy(&page[at], &word, 8);
  }
  write_trailer(key.shape, {key.content, version, 16}, page);
  return page;
}

inline Bytes unit_bytes(std::uint64_t pages) {
  Bytes bytes = 0;
  for (const PageKey& key : tier_keys(0, pages)) bytes += stored_bytes(key.shape);
  return bytes;
}

inline PageDiskConfig tier_disk(Bytes blocks) {
  PageDiskConfig config = small_disk("memory", blocks);
  config.max_page_bytes = page_bytes(four_blocks());
  return config;
}

/// Memory of a job.
struct TierMemory {
  std::vector<std::vector<std::byte>> memory;
  std::vector<TierPage> pages;

  static TierMemory filled(const std::vector<PageKey>& keys, std::uint64_t version) {
    TierMemory job;
    for (const PageKey& key : keys) job.memory.push_back(tier_page(key, version));
    job.name(keys);
    return job;
  }
  static TierMemory empty(const std::vector<PageKey>& keys) {
    TierMemory job;
    for (const PageKey& key : keys)
      job.memory.emplace_back(static_cast<std::size_t>(page_bytes(key.shape)));
    job.name(keys);
    return job;
  }
  /// Which version page `i` is, if it is one to the last byte.
  std::optional<std::uint64_t> version(std::size_t i) const {
    const std::uint64_t version = read_trailer(memory[i]).generation;
    if (memory[i] != tier_page(pages[i].key, version)) return std::nullopt;
    return version;
  }

 private:
  void name(const std::vector<PageKey>& keys) {
    for (std::size_t i = 0; i < keys.size(); ++i) pages.push_back({keys[i], memory[i]});
  }
};

/// Facts of no importance.
inline EvictionFacts some_facts() {
  return {0, TokenClass::image, both(fp16()), kMillisecond};
}

/// A disk in memory, whose files outlive what is opened on them.
class TierWorld {
 public:
  explicit TierWorld(const PageDiskConfig& disk_config)
      : config(disk_config), machine(disk_config.capacity_bytes) {}

  void open(const DiskTierConfig& tier_config = {}, const BlockFaultPlan& plan = {}) {
    close();
    DiskFiles files = machine.files(config.max_transfers);
    files.pages.file = std::make_unique<FaultBlockFile>(std::move(files.pages.file), plan);
    disk.emplace(config, std::move(files));
    tier.emplace(*disk, tier_config);
  }
  void close() {
    tier.reset();
    disk.reset();
  }
  /// The outcome of the only job.
  Status outcome(const TierStarted& started) {
    if (started.status != Status::ok) return started.status;
    const auto outcome = tier->next(kLongWait);
    EXPECT_TRUE(outcome && outcome->job == started.job);
    return outcome ? outcome->status : Status::unsupported;
  }
  Status store(std::uint64_t unit, std::uint64_t pages, std::uint64_t version = 0) {
    const TierMemory job = TierMemory::filled(tier_keys(unit, pages), version);
    return outcome(tier->store(job.pages, some_facts()));
  }
  /// ok: and just so.
  Status load(std::uint64_t unit, std::uint64_t pages, std::uint64_t version = 0) {
    const TierMemory job = TierMemory::empty(tier_keys(unit, pages));
    const Status status = outcome(tier->load(job.pages));
    for (std::size_t i = 0; status == Status::ok && i < pages; ++i)
      EXPECT_EQ(job.version(i), version) << "page " << i << " of " << unit;
    return status;
  }
  bool contains(std::uint64_t unit, std::uint64_t pages) const {
    return tier->contains(tier_keys(unit, pages));
  }
  /// Until all erasures are done; false where some never are.
  bool settle(Nanos within_ns = 5 * kSecond) {
    const auto is_settled = [&] {
      const DiskTierUsage usage = tier->usage();
      return usage.erasing_pages + usage.leaving_units + disk->counters().stuck == 0;
    };
    for (Nanos waited = 0; !is_settled(); waited += kMillisecond) {
      if (waited > within_ns) return false;
      EXPECT_FALSE(tier->next(0));
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    return true;
  }
  Bytes used_bytes() const { return disk->capacity_bytes() - disk->free_bytes(); }

  PageDiskConfig config;
  MemoryDisk machine;
  std::optional<PageDisk> disk;
  std::optional<DiskTier> tier;
};

class DiskTiers : public ::testing::Test {
 protected:
  static constexpr std::uint64_t kPages = 6;  // of a unit: 18 blocks

  TierWorld& world(Bytes units, const DiskTierConfig& tier = {}, const BlockFaultPlan& plan = {}) {
    PageDiskConfig config = tier_disk(units * unit_bytes(kPages) / kBlockBytes);
    config.max_operations = 8;
    config.max_transfers = 4;
    return opened(config, tier, plan);
  }
  TierWorld& opened(const PageDiskConfig& config, const DiskTierConfig& tier = {},
                    const BlockFaultPlan& plan = {}) {
    world_.emplace(config);
    world_->open(tier, plan);
    return *world_;
  }
  // Nothing leaks.
  void expect_exact(std::size_t units, std::size_t pages) {
    ASSERT_TRUE(world_->settle());
    const DiskTierUsage usage = world_->tier->usage();
    EXPECT_EQ(usage.units, units);
    EXPECT_EQ(usage.pages, pages);
    EXPECT_EQ(usage.erasing_bytes, 0);
    EXPECT_EQ(usage.held_bytes, world_->used_bytes());
    EXPECT_EQ(world_->disk->pages(), pages);
  }

  std::optional<TierWorld> world_;
};

}  // namespace modalkv
