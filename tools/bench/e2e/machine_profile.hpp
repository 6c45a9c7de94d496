// A machine's profile as it is measured on the spot: what the planner plans for, and what the
// simulator predicts the runs by.
#pragma once

#include "modalkv/hardware.hpp"
#include "tools/bench/e2e/e2e_engine.hpp"
#include "tools/bench/e2e/e2e_machine.hpp"

namespace modalkv {

/// Copies by piece size, decode attention over 16-bit pages, the decoder's matrices at a batch's
/// rows and at a chunk's, CPU attention, hand-over: medians of a few runs each, some seconds on a
/// GPU. Nothing else may use the machine meanwhile. Throws Error where an operation fails.
HardwareProfile measure_machine(E2eMachine& machine, const E2eLoad& load);

}  // namespace modalkv
