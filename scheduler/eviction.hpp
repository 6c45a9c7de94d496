// Which units leave a full tier: three policies behind one interface.
//
// Leaving takes time, so it has two phases: `prepare` names victims, and when a victim's bytes are
// copied out the caller says `complete`, or `cancel` where it stays after all. Recency is the order
// of calls; of units used together, touch the last of a prompt first, so that a prefix outlives
// what is behind it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <variant>
#include <vector>

#include "modalkv/policy.hpp"
#include "scheduler/cost_aware_order.hpp"
#include "scheduler/eviction_ledger.hpp"
#include "scheduler/lru_order.hpp"
#include "scheduler/tiny_lfu_order.hpp"

namespace modalkv {

/// The units of one tier. Same calls, same victims, on every machine. One thread at a time. A call
/// costs O(log units) on average, `prepare` that a victim. Calls on a unit that is not here, or
/// against what is said below, are bugs and abort.
class Eviction {
 public:
  explicit Eviction(EvictionPolicy policy);
  // Orders refer to the units of their ledger: it moves, but is not copied.
  Eviction(Eviction&&) = default;
  Eviction& operator=(Eviction&&) = default;

  /// A unit that is not here yet. It can be a victim at once: pin what is not complete.
  void insert(UnitId id, const EvictionFacts& facts);
  /// It was used.
  void touch(UnitId id);
  /// Bringing it back costs something else now: the tier below has got or lost its copy.
  void reprice(UnitId id, Nanos reload_ns);

  /// A pinned unit is never a victim: it is being read, written or prefetched. Pins are counted. A
  /// unit that is leaving can be pinned; then it must be cancelled.
  void pin(UnitId id);
  void unpin(UnitId id);

  /// Units to evict for `bytes_needed`, first to go first; together at least that, without the last
  /// one less. Empty, and nothing prepared, where `evictable_bytes()` is less. No unit is prepared
  /// twice until it is cancelled.
  [[nodiscard]] std::vector<UnitId> prepare(Bytes bytes_needed);
  /// A prepared unit has left. It may come back by `insert`: its uses are remembered.
  void complete(UnitId id);
  /// A prepared unit stays, ranked as if it had never been prepared.
  void cancel(UnitId id);
  /// It no longer exists: released, not evicted. Prepared or not, but not pinned.
  void erase(UnitId id);

  bool contains(UnitId id) const;
  std::size_t size() const;
  /// Of all units, those that are leaving too.
  Bytes held_bytes() const;
  /// Of those that are neither pinned nor leaving.
  Bytes evictable_bytes() const;

 private:
  std::variant<EvictionLedger<LruOrder>, EvictionLedger<TinyLfuOrder>,
               EvictionLedger<CostAwareOrder>>
      ledger_;
};

}  // namespace modalkv
