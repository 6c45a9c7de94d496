// What a batch asks of memory: sequences summed into groups, and the planner's problem built from
// them.
#pragma once

#include <array>

#include "modalkv/model.hpp"
#include "modalkv/policy.hpp"
#include "scheduler/batcher.hpp"
#include "scheduler/placement.hpp"

namespace modalkv {

/// Tokens by permission, and in the last place all of them (layers held in high precision).
using GroupTokens = std::array<Tokens, kMaxGroups>;

/// The model, policy and cost model must outlive it. Immutable.
class BatchDemand {
 public:
  BatchDemand(const ModelGeometry& model, const PrecisionPolicy& policy, const CostModel& cost,
              double memory_utilization);

  /// Adds `held` tokens of KV of `sequence`.
  void add(GroupTokens& tokens, const Sequence& sequence, Tokens held) const;
  /// Everything but the batch's compute; nothing compressed yet.
  StepProblem problem(const GroupTokens& tokens) const;

  Bytes device_budget_bytes() const { return device_budget_bytes_; }
  Bytes host_budget_bytes() const {
    return host_budget_bytes_;
  }                                                 ///< 0: the policy stays on the GPU
  Bytes high_bytes() const { return high_bytes_; }  ///< of a token in a layer
  /// Of a token in all layers, as compact as its permission allows.
  Bytes stored_token_bytes(Permission permission) const;

 private:
  const PrecisionPolicy& policy_;
  const CostModel& cost_;
  int layers_;
  Bytes device_budget_bytes_;
  Bytes host_budget_bytes_;
  Bytes high_bytes_;
  std::array<Bytes, kPermissions> low_bytes_;
};

}  // namespace modalkv
