// Admission by do-no-harm: a waiting sequence joins when the batch's tokens per second do not fall
// by it.
#pragma once

#include "modalkv/units.hpp"
#include "scheduler/placement.hpp"

namespace modalkv {

/// Compares decode throughput without and with one more sequence than `running` (> 0), each with
/// its KV placed as well as may be. Both should count what the sequences are yet to grow by: a
/// batch that is best as it stands is too large when it has grown. Ties go to waiting.
bool keeps_throughput(const StepProblem& without, const StepProblem& with, Tokens running);

}  // namespace modalkv
