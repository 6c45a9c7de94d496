// Admission by do-no-harm: a waiting sequence joins when the batch's tokens per second do not fall
// by it.
#pragma once

#include "modalkv/units.hpp"
#include "scheduler/placement.hpp"

namespace modalkv {

/// Compares decode throughput without and with one more sequence than `running` (> 0), each with
/// its KV placed as well as may be. Always true where everything with it stays in GPU memory in 16
/// bits: then there is nothing to lose. Ties go to waiting.
bool keeps_throughput(const StepProblem& without, const StepProblem& with, Tokens running);

}  // namespace modalkv
