#include "scheduler/admission.hpp"

#include "scheduler/planner.hpp"

namespace modalkv {
namespace {

bool fits_first_choice(const StepProblem& problem) {
  const Placement first = first_choice(problem);
  return problem.policy->places.resident &&
         fits(problem, memory_use(problem, layer_loads(problem, first), first.staging_slots));
}

}  // namespace

bool keeps_throughput(const StepProblem& without, const StepProblem& with, Tokens running) {
  if (fits_first_choice(with)) return true;
  const auto before = plan_placement(without);
  const auto after = plan_placement(with);
  if (!after) return false;
  if (!before) return true;
  const auto sequences = static_cast<double>(running);
  return (sequences + 1) * static_cast<double>(steady_step_ns(without, *before)) >
         sequences * static_cast<double>(steady_step_ns(with, *after));
}

}  // namespace modalkv
