// Residency: keeps a running batch's KV where the planner wants it, and re-plans only when it must
// or when it pays.
#pragma once

#include <cstdint>

#include "scheduler/kv_state.hpp"
#include "scheduler/placement.hpp"

namespace modalkv {

class Residency {
 public:
  /// Puts what is already compressed into the demand of `problem`.
  void annotate(StepProblem& problem) const { state_.annotate(problem.demand); }

  /// Places the KV of `problem` (annotated). `decode_compute` is the compute of a step in which
  /// every sequence decodes: places are chosen for such steps, since they are most. False where
  /// nothing fits: the caller must preempt.
  bool place(StepProblem& problem, const ComputeTimes& decode_compute);

  /// Of the last `place`.
  const Placement& placement() const { return placement_; }
  const Migration& migration() const { return migration_; }
  std::int64_t replans() const { return replans_; }

  void add_encoded(Permission permission, Tokens tokens) {
    state_.add_encoded(static_cast<std::size_t>(permission), tokens);
  }
  void remove(const std::array<Tokens, kMaxGroups>& before,
              const std::array<Tokens, kMaxGroups>& left) {
    state_.remove(before, left);
  }

 private:
  bool must_replan(const StepProblem& problem, Bytes demand_bytes) const;

  KvState state_;
  Placement placement_{};
  Migration migration_{};
  Bytes planned_bytes_ = -1;  // demand that placement_ was made for; -1: none yet
  std::int64_t replans_ = 0;
};

}  // namespace modalkv
