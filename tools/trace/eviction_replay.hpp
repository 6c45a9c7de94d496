// What a tier of a given size would have to bring back, request by request: under a policy, under
// one that knows the future, and at least.
#pragma once

#include "scheduler/eviction.hpp"
#include "tools/trace/unit_uses.hpp"

namespace modalkv {

/// Of uses after the first: a first use is computed anyway.
struct EvictionOutcome {
  Bytes reused_bytes = 0;
  Bytes hit_bytes = 0;    ///< of them: still in the tier
  Nanos reusable_ns = 0;  ///< to reload all of them
  Nanos reload_ns = 0;    ///< to reload those that had left
};

/// A request's units stay while it is served, the front of its prompt first where not all fit.
EvictionOutcome replay_eviction(const UnitUses& uses, EvictionPolicy policy, Bytes capacity_bytes);

/// Belady's rule: what is used again last leaves first. Optimal for units of one size and cost.
EvictionOutcome replay_farthest(const UnitUses& uses, Bytes capacity_bytes);

/// No policy reloads less: each pair of uses that follow each other takes bytes x requests between
/// them out of capacity x requests, the most time saved for it first (PFOO-L in Berger, Beckmann
/// and Harchol-Balter, "Practical bounds on optimal caching with variable object sizes", 2018).
Nanos least_reload_ns(const UnitUses& uses, Bytes capacity_bytes);

}  // namespace modalkv
