// Watches the steps of a runtime: which groups are of which step, how long decode steps take, and
// whether that calls for another plan.
#pragma once

#include <optional>
#include <span>
#include <string>

#include "modalkv/runtime.hpp"
#include "offload/tracing_device.hpp"
#include "runtime/metrics.hpp"
#include "runtime/replanner.hpp"
#include "runtime/step_clock.hpp"

namespace modalkv {

class StepWatch {
 public:
  /// Watches once the device records.
  StepWatch(TracingDevice& device, const RuntimeConfig& config);

  /// A call for a layer is about to be made: its groups are of the step that goes on or begins.
  void before(int layer, bool attends);
  /// It was an attention, and it was submitted.
  void attended(std::span<const AttendRequest> batch, int layer);

  /// By the engine's own words. Records from now on: what is measured says when to plan again.
  std::optional<Replanner::Planned> plan(const ModelGeometry& model,
                                         const HardwareProfile& hardware,
                                         const RunningBatch& batch);
  /// Takes the time of the steps that have ended since. A plan where they drift, and where this
  /// rank may plan for itself: ranks of a group, which each measure otherwise, have to be asked to.
  /// `batch()` is what runs.
  template <typename Batch>
  std::optional<Replanner::Planned> look(Batch&& batch) {
    if (!device_.recording()) return {};
    bool drifts = false;
    while (const auto step_ns = clock_.next([&](Ticket end) { return device_.end_of(end); }))
      drifts |= take(*step_ns, batch());
    return drifts && may_replan_ ? replan(batch()) : std::nullopt;
  }

  /// The groups of the latest `steps` steps.
  std::vector<TracedGroup> groups(int steps) const;
  /// What it knows of queues, steps and plans.
  void fill(RuntimeMetrics& metrics) const;
  std::string plan_history() const { return replanner_.history(); }

 private:
  bool take(Nanos step_ns, const RunningBatch& batch);
  std::optional<Replanner::Planned> replan(const RunningBatch& batch);

  TracingDevice& device_;
  QueueId compute_, h2d_;
  int layers_;
  bool may_replan_;
  Replanner replanner_;
  StepClock clock_;
  StepMetrics steps_{};
  TraceLabel label_{};
  bool attends_ = false;    // the latest call
  Nanos called_at_ns_ = 0;  // where it began a step
  QueueUse link_before_{};  // at the latest plan
};

}  // namespace modalkv
