// A decode step as operations: what a placement makes each layer copy, attend to and merge, on
// which queue and after what. The recurrence (scheduler/step_recurrence.hpp) predicts the time of
// such a program; a device performs it.
#pragma once

#include <vector>

#include "modalkv/model.hpp"
#include "offload/device.hpp"
#include "scheduler/placement.hpp"

namespace modalkv {

struct Submission {
  QueueKind queue = QueueKind::compute;
  int numa_node = 0;
  std::vector<Op> ops{};
  std::vector<std::size_t> after{};  ///< earlier submissions
};

/// Its operations refer to two spaces: SpaceId{0} on the device, SpaceId{1} on the host.
struct StepProgram {
  std::vector<Submission> submissions;
  std::vector<std::size_t> step_ends;  ///< the last submission of each step
  Bytes device_bytes = 0;
  Bytes host_bytes = 0;
};

/// `steps` alike decode steps of `sequences` sequences, one after another; copies of a step run
/// ahead into the one before as far as the staging slots let them. The KV of `problem` is spread
/// over the sequences evenly, in whole pages; all of it was stored by earlier steps
/// (`problem.stored_share` and `decode_share` are 1). CPU attention is spread over the NUMA nodes
/// by their bandwidth.
StepProgram decode_program(const ModelGeometry& model, const StepProblem& problem,
                           const Placement& placement, const HostProfile& host, int sequences,
                           int steps);

struct ProgramRun {
  Status status = Status::ok;  ///< the first that is not ok
  std::vector<Nanos> step_end_ns;
  std::int64_t times_busy = 0;  ///< submissions that had to wait for room
};

/// Runs the program on an idle device that has no spaces yet, which it is given without memory:
/// virtual time. Ends with the device idle.
ProgramRun run_program(Device& device, const StepProgram& program);

}  // namespace modalkv
