#include "tools/trace/eviction_replay.hpp"

#include <algorithm>
#include <limits>
#include <set>
#include <utility>

namespace modalkv {
namespace {

class PolicyTier {
 public:
  PolicyTier(const UnitUses& uses, EvictionPolicy policy) : uses_(uses), eviction_(policy) {}

  void begin_request(std::size_t) {}
  bool holds(std::uint32_t unit) const { return eviction_.contains(UnitId{unit}); }
  Bytes held_bytes() const { return eviction_.held_bytes(); }
  void pin(std::uint32_t unit) { eviction_.pin(UnitId{unit}); }
  void unpin(std::uint32_t unit) { eviction_.unpin(UnitId{unit}); }
  void touch(std::uint32_t unit) { eviction_.touch(UnitId{unit}); }
  void insert(std::uint32_t unit) { eviction_.insert(UnitId{unit}, uses_.units[unit]); }
  void evict(Bytes bytes) {
    for (const UnitId victim : eviction_.prepare(bytes)) eviction_.complete(victim);
  }

 private:
  const UnitUses& uses_;
  Eviction eviction_;
};

class FarthestTier {
 public:
  explicit FarthestTier(const UnitUses& uses)
      : uses_(uses), next_(uses.units.size(), kNever), following_(uses.uses.size(), kNever) {
    // Of each use, the request of the unit's next one.
    for (std::size_t request = uses.requests(); request-- > 0;)
      for (std::size_t i = uses.request_starts[request]; i < uses.request_starts[request + 1]; ++i)
        following_[i] = std::exchange(next_[uses.uses[i]], request);
    std::fill(next_.begin(), next_.end(), kNever);
  }

  void begin_request(std::size_t request) {
    for (std::size_t i = uses_.request_starts[request]; i < uses_.request_starts[request + 1];
         ++i) {
      const std::uint32_t unit = uses_.uses[i];
      const bool held = held_.erase({next_[unit], unit}) == 1;
      next_[unit] = following_[i];
      if (held) held_.insert({next_[unit], unit});
    }
  }
  bool holds(std::uint32_t unit) const { return held_.contains({next_[unit], unit}); }
  Bytes held_bytes() const { return held_bytes_; }
  void pin(std::uint32_t unit) { pinned_.insert(unit); }
  void unpin(std::uint32_t unit) { pinned_.erase(unit); }
  void touch(std::uint32_t) {}
  void insert(std::uint32_t unit) {
    held_.insert({next_[unit], unit});
    held_bytes_ += uses_.units[unit].bytes;
  }
  void evict(Bytes bytes) {
    for (auto last = held_.end(); bytes > 0 && last != held_.begin();) {
      --last;
      const std::uint32_t unit = last->second;
      if (pinned_.contains(unit)) continue;
      bytes -= uses_.units[unit].bytes;
      held_bytes_ -= uses_.units[unit].bytes;
      last = held_.erase(last);
    }
  }

 private:
  static constexpr std::size_t kNever = std::numeric_limits<std::size_t>::max();

  const UnitUses& uses_;
  std::vector<std::size_t> next_, following_;
  std::set<std::pair<std::size_t, std::uint32_t>> held_;  // by next use
  std::set<std::uint32_t> pinned_;
  Bytes held_bytes_ = 0;
};

// Counts what `units` find in the tier before anything moves.
template <typename Tier>
void count(const UnitUses& uses, std::span<const std::uint32_t> units, const Tier& tier,
           std::vector<bool>& seen, EvictionOutcome& outcome) {
  for (const std::uint32_t unit : units) {
    const EvictionFacts& facts = uses.units[unit];
    if (!seen[unit]) {
      seen[unit] = true;
      continue;
    }
    outcome.reused_bytes += facts.bytes;
    outcome.reusable_ns += facts.reload_ns;
    if (tier.holds(unit)) {
      outcome.hit_bytes += facts.bytes;
    } else {
      outcome.reload_ns += facts.reload_ns;
    }
  }
}

// Brings `units`, which fit, into the tier.
template <typename Tier>
void serve(const UnitUses& uses, std::span<const std::uint32_t> units, Tier& tier,
           Bytes capacity_bytes) {
  for (const std::uint32_t unit : units)
    if (tier.holds(unit)) tier.pin(unit);
  // From the end of the prompt: its front is the most recent.
  for (auto unit = units.rbegin(); unit != units.rend(); ++unit) {
    if (tier.holds(*unit)) {
      tier.touch(*unit);
      continue;
    }
    tier.evict(std::max<Bytes>(0, tier.held_bytes() + uses.units[*unit].bytes - capacity_bytes));
    tier.insert(*unit);
    tier.pin(*unit);
  }
  for (const std::uint32_t unit : units) tier.unpin(unit);
}

template <typename Tier>
EvictionOutcome replay(const UnitUses& uses, Bytes capacity_bytes, Tier tier) {
  EvictionOutcome outcome;
  std::vector<bool> seen(uses.units.size());
  for (std::size_t request = 0; request < uses.requests(); ++request) {
    tier.begin_request(request);
    const auto units = uses.of_request(request);
    count(uses, units, tier, seen, outcome);
    Bytes bytes = 0;
    std::size_t fitting = 0;
    while (fitting < units.size() && (bytes += uses.units[units[fitting]].bytes) <= capacity_bytes)
      ++fitting;
    serve(uses, units.first(fitting), tier, capacity_bytes);
  }
  return outcome;
}

}  // namespace

EvictionOutcome replay_eviction(const UnitUses& uses, EvictionPolicy policy, Bytes capacity_bytes) {
  return replay(uses, capacity_bytes, PolicyTier(uses, policy));
}

EvictionOutcome replay_farthest(const UnitUses& uses, Bytes capacity_bytes) {
  return replay(uses, capacity_bytes, FarthestTier(uses));
}

Nanos least_reload_ns(const UnitUses& uses, Bytes capacity_bytes) {
  struct Interval {
    double space;  // bytes x requests
    double reload_ns;
  };
  std::vector<Interval> intervals;
  std::vector<std::size_t> last(uses.units.size(), uses.requests());
  double all_ns = 0;
  for (std::size_t request = 0; request < uses.requests(); ++request)
    for (const std::uint32_t unit : uses.of_request(request)) {
      const std::size_t before = std::exchange(last[unit], request);
      if (before == uses.requests()) continue;
      const EvictionFacts& facts = uses.units[unit];
      const auto reload_ns = static_cast<double>(facts.reload_ns);
      intervals.push_back(
          {static_cast<double>(facts.bytes) * static_cast<double>(request - before), reload_ns});
      all_ns += reload_ns;
    }
  std::sort(intervals.begin(), intervals.end(), [](const Interval& a, const Interval& b) {
    return a.reload_ns * b.space > b.reload_ns * a.space;
  });
  double space = static_cast<double>(capacity_bytes) * static_cast<double>(uses.requests() - 1);
  double saved_ns = 0;
  for (const Interval& interval : intervals) {
    const double share = std::min(1.0, space / interval.space);
    saved_ns += share * interval.reload_ns;
    space -= share * interval.space;
    if (share < 1) break;
  }
  return static_cast<Nanos>(std::max(0.0, all_ns - saved_ns));
}

}  // namespace modalkv
