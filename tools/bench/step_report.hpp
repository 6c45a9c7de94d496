// What the measurement of decode steps says, for people and for programs.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "tools/bench/bench_report.hpp"
#include "tools/bench/thread_cost.hpp"

namespace modalkv {

struct StepReport {
  BenchReport head{};  ///< the machine
  Tokens pages = 0;  ///< of a sequence, where the thread's cost was measured
  std::vector<ThreadCost> thread_cost{};

  nlohmann::ordered_json json() const;
  std::string table() const;
};

}  // namespace modalkv
