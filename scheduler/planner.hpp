// The planner: for one step's problem, the placement with the least step time, and a proven bound
// on how much better any other could be.
//
// Method: a linear program over the groups' shares (resident / streamed / CPU, 16-bit / compressed)
// minimizes the busiest of GPU, link and CPU under the GPU's and host's memory; its vertices with
// and without CPU attention and for several staging depths, and the points between them, are scored
// by the exact step recurrence. The program without premiums and with the least staging
// bounds every placement from below.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "modalkv/plan.hpp"
#include "scheduler/placement.hpp"

namespace modalkv {

/// What a plan must gain, as a share of a step's compute time, to be worth its drawbacks; so that
/// nothing wins ties.
inline constexpr double kPrecisionPremium = 0.05;  ///< for compressing all that may be
inline constexpr double kMovementPremium = 0.02;   ///< for keeping any KV off the GPU

/// `quick` tries the least staging only: for asking whether, not how.
enum class PlanEffort : std::uint8_t { quick, thorough };

/// The best placement found, or nothing where none fits. Where everything fits in 16 bits, that is
/// the answer at once: do no harm.
std::optional<Placement> plan_placement(const StepProblem& problem,
                                        PlanEffort effort = PlanEffort::thorough);

/// No permitted placement of this problem has a shorter steady step. 0 where none fits.
Nanos step_lower_bound_ns(const StepProblem& problem);

/// The plan as a table of layers, with its time, its bound and its reason.
Plan describe_plan(const StepProblem& problem, const Placement& placement);

}  // namespace modalkv
