#include "scheduler/admission.hpp"

#include "scheduler/planner.hpp"

namespace modalkv {

bool keeps_throughput(const StepProblem& without, const StepProblem& with, Tokens running) {
  const auto before = plan_placement(without, PlanEffort::quick);
  const auto after = plan_placement(with, PlanEffort::quick);
  if (!before || !after) return false;
  const auto sequences = static_cast<double>(running);
  return (sequences + 1) * static_cast<double>(steady_step_ns(without, *before)) >
         sequences * static_cast<double>(steady_step_ns(with, *after));
}

}  // namespace modalkv
