// Measures decode steps of the linked runtime: what it costs the engine's thread.
#pragma once

#include <string_view>

#include "tools/bench/step_report.hpp"
#include "tools/bench/thread_cost.hpp"

namespace modalkv {

struct StepCase {
  ThreadCostCase thread_cost{};
  DecodeCase decode{};
  bool quick = false;
};

/// Throws Error where the case cannot be measured here.
StepReport bench_step(const StepCase& options, std::string_view command_line);

}  // namespace modalkv
