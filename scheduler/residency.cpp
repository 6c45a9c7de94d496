#include "scheduler/residency.hpp"

#include "scheduler/planner.hpp"

namespace modalkv {
namespace {

// Shares scale with the batch: room for a batch that grows this much until the next plan.
constexpr double kGrowthHeadroom = 0.03;
// A batch that shrank this much may deserve better places.
constexpr double kShrinkToReplan = 0.10;

Bytes high_bytes(const StepProblem& problem) {
  Bytes bytes = 0;
  for (int g = 0; g < problem.demand.group_count; ++g) {
    const DemandGroup& group = problem.demand.groups[static_cast<std::size_t>(g)];
    bytes += group.tokens * group.high_bytes * problem.layers_of(group.kind);
  }
  return bytes;
}

}  // namespace

bool Residency::place(StepProblem& problem, const ComputeTimes& decode_compute) {
  const Bytes demand_bytes = high_bytes(problem);
  // The common case first: what is not compressed yet stays as it is, in GPU memory.
  const Placement first = first_choice(problem);
  const bool first_fits = placement_fits(problem, first);
  if (first_fits) {
    placement_ = first;
    planned_bytes_ = -1;
  } else if (must_replan(problem, demand_bytes)) {
    StepProblem roomy = problem;
    roomy.compute = decode_compute;
    roomy.decode_share = roomy.stored_share = 1;
    roomy.device_budget_bytes = static_cast<Bytes>(
        static_cast<double>(problem.device_budget_bytes) * (1 - kGrowthHeadroom));
    auto planned = plan_placement(roomy);
    if (!planned) {
      roomy.device_budget_bytes = problem.device_budget_bytes;
      planned = plan_placement(roomy);
    }
    if (!planned || !placement_fits(problem, *planned)) return false;
    ++replans_;
    placement_ = *planned;
    planned_bytes_ = demand_bytes;
  }
  migration_ = state_.settle(problem, placement_);
  return true;
}

bool Residency::must_replan(const StepProblem& problem, Bytes demand_bytes) const {
  if (planned_bytes_ < 0 || !placement_fits(problem, placement_)) return true;
  return static_cast<double>(demand_bytes) <
         (1 - kShrinkToReplan) * static_cast<double>(planned_bytes_);
}

}  // namespace modalkv
