// What the measurement of decode steps says, for people and for programs.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "tools/bench/bench_report.hpp"
#include "tools/bench/decode_rounds.hpp"
#include "tools/bench/thread_cost.hpp"

namespace modalkv {

struct StepReport {
  BenchReport head{};  ///< the machine
  int cpus = 0;
  Tokens pages = 0;  ///< of a sequence, where the thread's cost was measured
  std::vector<ThreadCost> thread_cost{};
  DecodeCase decode{};
  DecodeResult decoded{};

  nlohmann::ordered_json json() const;
  /// A table for each question, and what shares what.
  std::string table() const;
};

}  // namespace modalkv
