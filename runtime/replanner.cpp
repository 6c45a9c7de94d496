#include "runtime/replanner.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <utility>

#include "scheduler/batch_demand.hpp"
#include "scheduler/planner.hpp"

namespace modalkv {
namespace {

// What is measured over less says little of the link.
constexpr Bytes kLeastMeasuredBytes = kMiB;
// No machine is this far from its profile: what is, has another cause.
constexpr double kMostFactor = 1024;

// `use(problem)` of a decode step of the batch.
template <typename Use>
auto with_problem(const ModelGeometry& model, const HardwareProfile& hardware,
                  const PrecisionPolicy& policy, const RunningBatch& batch, Use&& use) {
  const CostModel cost(model, hardware);
  const BatchDemand demand(model, policy, cost, 1);
  const PermissionCounts counts = count_permissions(policy, batch.text, batch.visual);
  StepProblem problem = demand.problem(
      {counts.high_only, counts.text_low, counts.visual_low, batch.text + batch.visual});
  problem.compute =
      cost.compute({.decode_tokens = batch.sequences, .sampled_tokens = batch.sequences});
  problem.device_budget_bytes = batch.device_budget_bytes;
  problem.host_budget_bytes = batch.host_budget_bytes;
  return use(problem);
}

// Whether a prediction for one does for the other.
bool alike(const RunningBatch& a, const RunningBatch& b) {
  const Tokens tokens = a.text + a.visual;
  return a.sequences == b.sequences && std::abs(a.text - b.text) * 64 <= tokens &&
         std::abs(a.visual - b.visual) * 64 <= tokens;
}

double milliseconds(Nanos ns) {
  return static_cast<double>(ns) / static_cast<double>(kMillisecond);
}

}  // namespace

Replanner::Replanner(const PrecisionPolicy& policy, const DriftBounds& bounds)
    : policy_(policy), monitor_(bounds) {}

std::optional<Replanner::Planned> Replanner::plan(const ModelGeometry& model,
                                                  const HardwareProfile& hardware,
                                                  const RunningBatch& batch) {
  model_ = model;
  hardware_ = hardware;
  factors_ = {};
  ++counts_.asked;
  return make(batch, "asked for");
}

std::optional<Replanner::Planned> Replanner::make(const RunningBatch& batch, std::string why) {
  const HardwareProfile hardware = scaled(hardware_, factors_);
  auto planned = with_problem(model_, hardware, policy_, batch,
                              [](const StepProblem& problem) -> std::optional<Planned> {
                                const auto placement = plan_placement(problem);
                                if (!placement) return {};
                                return Planned{*placement, describe_plan(problem, *placement)};
                              });
  std::string line =
      fmt::format("plan {} after {} steps, {}: ", counts_.asked + counts_.drifted, steps_, why);
  if (planned) {
    placement_ = planned->placement;
    line += fmt::format("{} sequences of {} text and {} visual tokens, step {:.3f} ms, {}",
                        batch.sequences, batch.text, batch.visual,
                        milliseconds(planned->plan.step_ns), planned->plan.reason);
  } else {
    ++counts_.failed;
    line += "nothing fits, the plan before stays";
  }
  history_.push_back(std::move(line));
  if (history_.size() > kHistory) history_.pop_front();
  monitor_.forget();
  predicted_for_ = {};
  return planned;
}

Nanos Replanner::predict(const RunningBatch& batch, const RateFactors& factors) const {
  return with_problem(
      model_, scaled(hardware_, factors), policy_, batch,
      [&](const StepProblem& problem) { return steady_step_ns(problem, *placement_); });
}

bool Replanner::observe(Nanos actual_ns, const RunningBatch& batch) {
  if (!placement_ || actual_ns <= 0 || batch.sequences == 0) return false;
  if (!alike(batch, predicted_for_)) {
    predicted_for_ = batch;
    predicted_ns_ = std::max(predict(batch, factors_), Nanos{1});
  }
  ++steps_;
  return monitor_.add(predicted_ns_, actual_ns);
}

std::optional<Replanner::Planned> Replanner::replan(const RunningBatch& batch,
                                                    const LinkMeasure& link) {
  if (!placement_) return {};
  const Nanos actual_ns = monitor_.actual_ns(), predicted_ns = monitor_.predicted_ns();
  const bool knows_link = link.bytes >= kLeastMeasuredBytes && link.pieces > 0 && link.busy_ns > 0;
  double link_factor = 1;
  if (knows_link) {
    const Nanos expected_ns = CostModel(model_, hardware_)
                                  .h2d_ns(link.bytes, std::max(link.bytes / link.pieces, Bytes{1}));
    link_factor = std::clamp(static_cast<double>(expected_ns) / static_cast<double>(link.busy_ns),
                             1 / kMostFactor, kMostFactor);
  }
  // A faster machine takes no longer: the factor that explains the steps is searched for.
  double slow = 1 / kMostFactor, fast = kMostFactor;
  const auto factors = [&](double rest) {
    return RateFactors{rest, knows_link ? link_factor : rest, rest};
  };
  for (int i = 0; i < 24; ++i) {
    const double middle = std::sqrt(slow * fast);
    (predict(batch, factors(middle)) > actual_ns ? slow : fast) = middle;
  }
  factors_ = factors(std::sqrt(slow * fast));
  ++counts_.drifted;
  return make(batch, fmt::format("drift (steps take {:.3f} ms, {:.3f} predicted; machine found at "
                                 "{:.3g}, link {} {:.3g} of the profile)",
                                 milliseconds(actual_ns), milliseconds(predicted_ns), factors_.gpu,
                                 knows_link ? "measured at" : "taken for", factors_.link));
}

std::string Replanner::history() const {
  std::string text;
  for (const std::string& line : history_) text += line + "\n";
  return text;
}

}  // namespace modalkv
