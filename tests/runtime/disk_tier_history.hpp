// A random history of a disk tier, many jobs at a time, each told outcome held against a model that
// knows only what was asked and told.
#pragma once

#include <list>
#include <map>
#include <set>

#include "tests/runtime/disk_tier_pages.hpp"

namespace modalkv {

struct TierWeather {
  const char* name;
  BlockFaultPlan plan;
  std::vector<Status> seen;  ///< outcomes that have to come up
  EvictionPolicy policy = EvictionPolicy::lru;
  bool log_fails = false;

  friend void PrintTo(const TierWeather& weather, std::ostream* out) { *out << weather.name; }
};

class TierHistory {
 public:
  static constexpr std::uint64_t kUnits = 8, kPages = 10;

  TierHistory(std::uint64_t seed, const TierWeather& weather)
      : random_(seed), weather_(weather), world_(config(weather.plan)) {}

  void open() {
    BlockFaultPlan plan = weather_.plan;
    plan.seed = random_();
    DiskTierConfig config;
    config.policy = weather_.policy;
    config.max_jobs = 12;
    config.stall_ns = loses() ? 60 * kMillisecond : kLongWait;
    world_.open(config, plan);
    expect_allowed();
  }

  void step() {
    const std::uint64_t what = random_() % 256;
    if (what < 60) {
      store(random_() % kUnits);
    } else if (what < 130) {
      load(random_() % kUnits);
    } else if (what < 131) {
      forget();
    } else if (what < 136 && weather_.log_fails) {
      world_.machine.fail_log(1, 0);
    } else {
      collect(random_() % 4 == 0 ? kMillisecond : 0);
    }
    expect_allowed();
  }

  /// All jobs end; then nothing has leaked.
  void drain() {
    while (!world_.tier->idle()) ASSERT_TRUE(collect(kLongWait)) << "a job never ends";
    EXPECT_TRUE(jobs_.empty());
    const bool settled = world_.settle(loses() ? 50 * kMillisecond : kLongWait);
    ASSERT_TRUE(settled || loses());
    const DiskTierUsage usage = world_.tier->usage();
    // What was erased under a load that never ends is not free either.
    const auto stuck = static_cast<Bytes>(world_.disk->counters().stuck);
    ASSERT_LE(world_.used_bytes(),
              usage.held_bytes + usage.erasing_bytes + stuck * stored_bytes(four_blocks()));
    ASSERT_LE(usage.held_bytes, usage.capacity_bytes);
    expect_allowed();
    if (loses()) return;
    Bytes bytes = 0;
    std::size_t pages = 0;
    for (std::uint64_t unit = 0; unit < kUnits; ++unit)
      for (const PageKey& key : tier_keys(unit, kPages))
        if (contains(key)) bytes += stored_bytes(key.shape), ++pages;
    ASSERT_EQ(bytes, usage.held_bytes);
    ASSERT_EQ(bytes, world_.used_bytes());
    ASSERT_EQ(pages, usage.pages);
    ASSERT_EQ(pages, world_.disk->pages());
  }

  /// Nothing is under way: what is here stays here.
  void reopen_settled() {
    const auto all = here();
    open();
    ASSERT_EQ(here(), all);
  }
  /// In the middle of everything. What was being stored or erased may be here or not.
  void reopen_at_once() {
    world_.close();
    jobs_.clear();
    versions_ = written_;
    open();
  }

  std::map<Status, int> outcomes;
  std::uint64_t evicted = 0;

 private:
  struct Pending {
    std::uint64_t number = 0, version = 0;  // version 0: it loads
    int era = 0;
    TierMemory memory;
    std::vector<std::set<std::uint64_t>> allowed;  // of a load's pages
  };

  static PageDiskConfig config(const BlockFaultPlan& plan) {
    PageDiskConfig config = tier_disk(90);  // not half of all
    config.max_operations = 12;
    config.max_transfers = 4;
    if (plan.lost > 0) config.timeout_ns = 20 * kMillisecond;
    return config;
  }
  bool loses() const { return weather_.plan.lost > 0; }
  bool flips() const { return weather_.plan.bit_flip > 0; }
  bool reads_well() const {
    return !loses() && !flips() && weather_.plan.read_error == 0 && weather_.plan.short_read == 0;
  }
  bool contains(const PageKey& key) const { return world_.tier->contains({&key, 1}); }
  std::set<std::pair<std::uint64_t, std::uint64_t>> here() const {
    std::set<std::pair<std::uint64_t, std::uint64_t>> all;
    for (std::uint64_t unit = 0; unit < kUnits; ++unit)
      for (std::uint64_t page = 0; page < kPages; ++page)
        if (contains(tier_key(unit, page))) all.insert({unit, page});
    return all;
  }

  std::vector<PageKey> some_keys(std::uint64_t unit) {
    std::vector<PageKey> keys = tier_keys(unit, kPages);
    if (random_() % 2 == 0) return keys;
    const auto cut = static_cast<std::ptrdiff_t>(random_() % kPages);
    if (random_() % 2 == 0) return {keys.begin() + cut, keys.end()};
    return {keys.begin(), keys.begin() + cut + 1};
  }

  void store(std::uint64_t unit) {
    const std::vector<PageKey> keys = some_keys(unit);
    Pending& job = jobs_.emplace_back();
    job.version = next_version_++;
    job.era = era_;
    job.memory = TierMemory::filled(keys, job.version);
    EvictionFacts facts = some_facts();
    facts.reload_ns = static_cast<Nanos>(random_() % kMillisecond);
    const TierStarted started = world_.tier->store(job.memory.pages, facts);
    ASSERT_TRUE(started.status == Status::ok || started.status == Status::busy);
    if (started.status != Status::ok) return jobs_.pop_back();
    job.number = started.job;
    for (const PageKey& key : keys) written_[key].insert(job.version);
  }

  void load(std::uint64_t unit) {
    const std::vector<PageKey> keys = some_keys(unit);
    Pending& job = jobs_.emplace_back();
    job.era = era_;
    job.memory = TierMemory::empty(keys);
    for (const PageKey& key : keys) job.allowed.push_back(allowed(key));
    const bool is_here = world_.tier->contains(keys);
    const TierStarted started = world_.tier->load(job.memory.pages);
    ASSERT_TRUE(started.status == (is_here ? Status::ok : Status::rejected) ||
                (is_here && started.status == Status::busy));
    if (started.status != Status::ok) return jobs_.pop_back();
    job.number = started.job;
  }

  void forget() {
    world_.tier->forget();
    ++era_;
    versions_.clear();
    EXPECT_TRUE(here().empty());
  }

  bool collect(Nanos timeout_ns) {
    const auto outcome = world_.tier->next(timeout_ns);
    if (!outcome) return false;
    const auto found = std::find_if(jobs_.begin(), jobs_.end(),
                                    [&](const Pending& job) { return job.number == outcome->job; });
    if (found == jobs_.end()) {
      ADD_FAILURE() << "told twice, or of nothing";
      return false;
    }
    const Pending job = std::move(*found);
    jobs_.erase(found);
    ended(job, outcome->status);
    evicted = std::max(evicted, world_.tier->counters().evicted_units);
    return true;
  }

  void ended(const Pending& job, Status status) {
    ++outcomes[status];
    const bool loads = job.version == 0, forgotten = job.era != era_;
    ASSERT_TRUE(status != Status::cancelled || forgotten || flips());
    ASSERT_TRUE(status != Status::checksum || flips());
    ASSERT_TRUE(!loads || !reads_well() || forgotten || status == Status::ok)
        << "it was evicted under a load: " << name(status);
    if (status != Status::ok) return;
    for (std::size_t i = 0; i < job.memory.pages.size(); ++i) {
      if (!loads) {  // or it was here already, in one of the versions that it may have
        if (!forgotten) versions_[job.memory.pages[i].key].insert(job.version);
        continue;
      }
      const auto version = job.memory.version(i);
      ASSERT_TRUE(version) << "other bytes were loaded";
      ASSERT_TRUE(job.allowed[i].contains(*version)) << "a version came back";
    }
  }

  /// In which versions a page may be here. A store may have ended and not be told yet.
  std::set<std::uint64_t> allowed(const PageKey& key) {
    std::set<std::uint64_t> all = versions_[key];
    for (const Pending& job : jobs_)
      if (job.version > 0 && job.era == era_)
        for (const TierPage& page : job.memory.pages)
          if (page.key == key) all.insert(job.version);
    return all;
  }

  // Only a victim that could not be erased comes back.
  void expect_allowed() {
    for (std::uint64_t unit = 0; unit < kUnits; ++unit)
      for (const PageKey& key : tier_keys(unit, kPages)) {
        if (contains(key)) {
          ASSERT_FALSE(allowed(key).empty()) << "what counts was never stored: " << unit;
        } else if (!loses() && !weather_.log_fails) {
          versions_.erase(key);
        }
      }
  }

  std::mt19937_64 random_;
  const TierWeather weather_;
  std::list<Pending> jobs_;  // outlives the disk
  TierWorld world_;
  std::uint64_t next_version_ = 1;
  int era_ = 0;
  std::unordered_map<PageKey, std::set<std::uint64_t>, PageKeyHash> versions_;  // that count
  std::unordered_map<PageKey, std::set<std::uint64_t>, PageKeyHash> written_;   // ever
};

}  // namespace modalkv
