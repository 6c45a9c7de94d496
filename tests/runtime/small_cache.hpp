// A KV cache of a model that is small enough to be computed by hand, and placements of what it
// holds.
#pragma once

#include "modalkv/runtime.hpp"
#include "scheduler/placement.hpp"
#include "scheduler/selection.hpp"

namespace modalkv {

/// 3 layers of 4 query and 2 KV heads of 32; text-centric, in all places, all pages verified.
inline RuntimeConfig small_cache_config() {
  RuntimeConfig config;
  config.layers = 3;
  config.query_heads = 4;
  config.kv_heads = 2;
  config.head_dim = 32;
  config.policy.selection = Selection::text_centric;
  config.policy.places = {true, true, true};
  config.staging_slot_bytes = 64 * kKiB;
  config.verify_every = 1;
  return config;
}

/// `low` for what is visual and may be compressed, `high` for all else.
inline Placement all(Action high, Action low) {
  Placement placement;
  for (std::size_t group = 0; group < placement.shares.size(); ++group) {
    const bool visual = group == static_cast<std::size_t>(Permission::visual_low);
    placement.shares[group][static_cast<std::size_t>(visual ? low : high)] = 1;
  }
  return placement;
}

}  // namespace modalkv
