// Plans for the running sequences, and plans again when steps take other than predicted: with the
// machine as it was found to be.
#pragma once

#include <deque>
#include <optional>
#include <string>

#include "modalkv/hardware.hpp"
#include "modalkv/model.hpp"
#include "modalkv/plan.hpp"
#include "modalkv/policy.hpp"
#include "scheduler/drift_monitor.hpp"
#include "scheduler/perturb.hpp"
#include "scheduler/placement.hpp"

namespace modalkv {

/// What a plan is for.
struct RunningBatch {
  Tokens text = 0, visual = 0;
  Tokens sequences = 0;
  Bytes device_budget_bytes = 0, host_budget_bytes = 0;
};

/// Copies to the device since the last plan, to know the link by. No bytes: nothing is known.
struct LinkMeasure {
  Bytes bytes = 0;
  std::int64_t pieces = 0;
  Nanos busy_ns = 0;
};

struct PlanCounts {
  std::int64_t asked = 0;    ///< plans that the engine asked for
  std::int64_t drifted = 0;  ///< plans because steps had drifted
  std::int64_t failed = 0;   ///< of both, without a placement that fits
};

/// No threads, no clock: the same calls, the same plans.
class Replanner {
 public:
  struct Planned {
    Placement placement{};
    Plan plan{};
  };

  explicit Replanner(const PrecisionPolicy& policy, const DriftBounds& bounds = {});

  /// By the engine's own model (a rank's share) and hardware, which are remembered. Nothing where
  /// nothing fits: the placement stays, and so does what drift is measured by.
  std::optional<Planned> plan(const ModelGeometry& model, const HardwareProfile& hardware,
                              const RunningBatch& batch);
  bool has_planned() const { return placement_.has_value(); }

  /// A decode step of `batch` took so long. True: `replan`.
  bool observe(Nanos actual_ns, const RunningBatch& batch);
  /// The machine is taken to be what explains the steps: the link as measured, where that is known,
  /// and all else as much faster or slower than the profile says.
  std::optional<Planned> replan(const RunningBatch& batch, const LinkMeasure& link);

  Nanos predicted_ns() const { return predicted_ns_; }  ///< of the latest observed step
  bool drifting() const { return monitor_.drifting(); }
  const PlanCounts& counts() const { return counts_; }
  const RateFactors& factors() const { return factors_; }
  /// The latest plans and why they were made, a line each, the oldest first.
  std::string history() const;

 private:
  static constexpr std::size_t kHistory = 16;

  std::optional<Planned> make(const RunningBatch& batch, std::string why);
  Nanos predict(const RunningBatch& batch, const RateFactors& factors) const;

  PrecisionPolicy policy_;
  ModelGeometry model_{};
  HardwareProfile hardware_{};  // as the engine says
  RateFactors factors_{};       // of it, as was found
  std::optional<Placement> placement_;
  DriftMonitor monitor_;
  RunningBatch predicted_for_{};
  Nanos predicted_ns_ = 0;
  std::int64_t steps_ = 0;  // observed
  PlanCounts counts_;
  std::deque<std::string> history_;
};

}  // namespace modalkv
