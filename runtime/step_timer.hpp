// Virtual time of one step after another: the recurrence, with one-time transfers and the other
// direction of the link.
#pragma once

#include "runtime/replay_result.hpp"
#include "scheduler/placement.hpp"
#include "scheduler/step_recurrence.hpp"

namespace modalkv {

/// What a step moves besides streaming, all layers together.
struct Transfers {
  Bytes to_device_bytes =
      0;  ///< brought back, or loaded for reuse: layer by layer, ahead of their use
  Bytes to_host_bytes = 0;  ///< offloaded, or kept for reuse
  Bytes encode_bytes = 0;   ///< read and written by the encoder
};

/// Carries what is in flight from step to step. A copy is a guess at the next step that changes
/// nothing.
class StepTimer {
 public:
  /// The batch was empty until `now_ns`: nothing is in flight but what still leaves the GPU.
  void restart(Nanos now_ns);
  /// Runs the step that `problem` (its cost model decides the durations) and `placement` describe.
  /// Fills times and bytes of the record.
  StepRecord run(const StepProblem& problem, const Placement& placement,
                 const Transfers& transfers);

 private:
  Pipeline pipeline_{};
  Nanos previous_begin_ns_ = 0;
  Nanos d2h_free_ns_ = 0;
  Nanos d2h_before_ns_ = 0;  // when the device-to-host traffic of the step before last is done
};

}  // namespace modalkv
