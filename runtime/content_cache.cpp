#include "runtime/content_cache.hpp"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <utility>

namespace modalkv {

UnitId ContentCache::add(CachedSegment segment, const EvictionFacts& facts) {
  // What comes back is known by its uses before.
  const auto known = evicted_.find(segment.prefix);
  const UnitId unit = known == evicted_.end() ? UnitId{next_unit_++} : known->second;
  if (!index_.insert(segment.prefix, unit)) {
    std::fprintf(stderr, "modalkv: bug: content is kept twice\n");
    std::abort();
  }
  if (segment.before) {
    pin(*segment.before);
    entries_.at(*segment.before).behind.insert(unit);
  }
  eviction_.insert(unit, facts);
  Entry& entry = entries_[unit];
  entry.segment = std::move(segment);
  entry.facts = facts;
  return unit;
}

// What is in front outlives what is behind.
void ContentCache::use(std::span<const UnitId> run) {
  for (auto unit = run.rbegin(); unit != run.rend(); ++unit) eviction_.touch(*unit);
}

void ContentCache::pin(UnitId unit) {
  ++entries_.at(unit).pins;
  eviction_.pin(unit);
}

void ContentCache::unpin(UnitId unit) {
  --entries_.at(unit).pins;
  eviction_.unpin(unit);
}

std::optional<UnitId> ContentCache::prepare() {
  const std::vector<UnitId> victims = eviction_.prepare(1);
  if (victims.empty()) return {};
  entries_.at(victims.front()).leaving = true;
  return victims.front();
}

void ContentCache::stay(UnitId unit) {
  entries_.at(unit).leaving = false;
  eviction_.cancel(unit);
}

std::vector<CachedSegment> ContentCache::erase(UnitId unit) {
  std::vector<UnitId> units{unit};
  for (std::size_t i = 0; i < units.size(); ++i) {
    const std::set<UnitId>& behind = entries_.at(units[i]).behind;
    units.insert(units.end(), behind.begin(), behind.end());
  }
  std::vector<CachedSegment> erased;
  for (auto last = units.rbegin(); last != units.rend(); ++last) erased.push_back(take_out(*last));
  return erased;
}

// With nothing behind it.
CachedSegment ContentCache::take_out(UnitId unit) {
  Entry& entry = entries_.at(unit);
  const bool evicted = entry.leaving && entry.pins == 0;
  while (entry.pins > 0) unpin(unit);
  if (entry.segment.before) {
    unpin(*entry.segment.before);
    entries_.at(*entry.segment.before).behind.erase(unit);
  }
  index_.erase(entry.segment.prefix);
  if (evicted) {
    eviction_.complete(unit);
    remember(entry.segment.prefix, unit);
  } else {
    eviction_.erase(unit);
  }
  CachedSegment segment = std::move(entry.segment);
  entries_.erase(unit);
  return segment;
}

void ContentCache::remember(const PrefixId& prefix, UnitId unit) {
  constexpr std::size_t kMostRemembered = 1 << 16;
  if (!evicted_.try_emplace(prefix, unit).second) return;
  remembered_.push_back(prefix);
  if (remembered_.size() <= kMostRemembered) return;
  evicted_.erase(remembered_.front());
  remembered_.pop_front();
}

std::vector<UnitId> ContentCache::units() const {
  std::vector<UnitId> all;
  for (const auto& [unit, entry] : entries_) all.push_back(unit);
  std::sort(all.begin(), all.end());
  return all;
}

}  // namespace modalkv
