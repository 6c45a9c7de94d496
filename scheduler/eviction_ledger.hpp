// Which units of a tier may leave, and which are on their way: the part of eviction that all
// policies share.
#pragma once

#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <unordered_map>
#include <vector>

#include "scheduler/eviction_facts.hpp"
#include "scheduler/unit.hpp"

namespace modalkv {

/// `Order` ranks the units that may leave. What its callers must keep to is said in eviction.hpp;
/// anything else is a bug and aborts.
template <typename Order>
class EvictionLedger {
 public:
  void insert(UnitId id, const EvictionFacts& facts) {
    require(facts.bytes > 0 && facts.reload_ns >= 0,
            "a unit without bytes or with a negative time");
    const auto [entry, is_new] = entries_.try_emplace(id);
    require(is_new, "inserted twice");
    entry->second.unit.id = id;
    entry->second.unit.facts = facts;
    held_bytes_ += facts.bytes;
    evictable_bytes_ += facts.bytes;
    order_.add(entry->second.unit);
  }
  void touch(UnitId id) { order_.use(at(id).unit); }
  void reprice(UnitId id, Nanos reload_ns) {
    require(reload_ns >= 0, "a negative time");
    Entry& entry = at(id);
    entry.unit.facts.reload_ns = reload_ns;
    order_.reprice(entry.unit);
  }

  void pin(UnitId id) {
    Entry& entry = at(id);
    ++entry.pins;
    settle(entry);
  }
  void unpin(UnitId id) {
    Entry& entry = at(id);
    require(entry.pins > 0, "unpinned more often than pinned");
    --entry.pins;
    settle(entry);
  }

  std::vector<UnitId> prepare(Bytes bytes_needed) {
    std::vector<UnitId> victims;
    if (bytes_needed > evictable_bytes_) return victims;
    for (Bytes found = 0; found < bytes_needed;) {
      Entry& entry = at(order_.lowest()->id);
      entry.leaving = true;
      settle(entry);
      found += entry.unit.facts.bytes;
      victims.push_back(entry.unit.id);
    }
    return victims;
  }
  void complete(UnitId id) {
    Entry& entry = at(id);
    require(entry.leaving, "left without being prepared");
    require(entry.pins == 0, "left while it is pinned");
    order_.evict(entry.unit);
    forget(entry);
  }
  void cancel(UnitId id) {
    Entry& entry = at(id);
    require(entry.leaving, "cancelled without being prepared");
    entry.leaving = false;
    settle(entry);
  }
  void erase(UnitId id) {
    Entry& entry = at(id);
    require(entry.pins == 0, "erased while it is pinned");
    entry.leaving = true;
    settle(entry);
    order_.erase(entry.unit);
    forget(entry);
  }

  bool contains(UnitId id) const { return entries_.contains(id); }
  std::size_t size() const { return entries_.size(); }
  Bytes held_bytes() const { return held_bytes_; }
  Bytes evictable_bytes() const { return evictable_bytes_; }

 private:
  struct Entry {
    typename Order::Unit unit{};
    int pins = 0;
    bool leaving = false;
  };

  static void require(bool holds, const char* otherwise) {
    if (holds) return;
    std::fprintf(stderr, "modalkv: bug: eviction: %s\n", otherwise);
    std::abort();
  }

  Entry& at(UnitId id) {
    const auto found = entries_.find(id);
    require(found != entries_.end(), "a unit that is not here");
    return found->second;
  }

  // Into the order or out of it, as it may leave now or may not.
  void settle(Entry& entry) {
    const bool evictable = entry.pins == 0 && !entry.leaving;
    if (evictable == entry.unit.ranked) return;
    if (evictable) {
      order_.release(entry.unit);
      evictable_bytes_ += entry.unit.facts.bytes;
    } else {
      order_.hold(entry.unit);
      evictable_bytes_ -= entry.unit.facts.bytes;
    }
  }

  void forget(const Entry& entry) {
    held_bytes_ -= entry.unit.facts.bytes;
    entries_.erase(UnitId{entry.unit.id});  // a copy: the entry goes with it
  }

  Order order_;
  std::unordered_map<UnitId, Entry> entries_;  // the order refers to its units
  Bytes held_bytes_ = 0, evictable_bytes_ = 0;
};

}  // namespace modalkv
