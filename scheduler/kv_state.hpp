// The KV of a running batch as the planner tracks it: how much of each group is compressed or on
// the host, and what a change of placement moves.
#pragma once

#include <array>
#include <cstddef>

#include "scheduler/placement.hpp"

namespace modalkv {

/// One-time work when KV takes the places that a placement asks for, all layers together.
struct Migration {
  Bytes to_host_bytes = 0;
  Bytes to_device_bytes = 0;
  Bytes encode_bytes = 0;  ///< read and written

  bool empty() const { return to_host_bytes == 0 && to_device_bytes == 0 && encode_bytes == 0; }
};

/// Fluid: within a group every sequence has the same shares. Compression is one-way.
class KvState {
 public:
  /// Puts the encoded tokens of each group into `demand`.
  void annotate(Demand& demand) const;
  /// A sequence with `left[g]` of the `before[g]` tokens of each group is gone; its share of
  /// everything goes too.
  void remove(const std::array<Tokens, kMaxGroups>& before,
              const std::array<Tokens, kMaxGroups>& left);
  /// `tokens` of a group arrive compressed.
  void add_encoded(std::size_t group, Tokens tokens) { groups_[group].encoded += tokens; }
  /// Takes the places that `placement` gives to `problem.demand`.
  Migration settle(const StepProblem& problem, const Placement& placement);

 private:
  struct Group {
    Tokens encoded = 0;
    Tokens host_high = 0;
    Tokens host_low = 0;
  };
  std::array<Group, kMaxGroups> groups_{};
};

}  // namespace modalkv
