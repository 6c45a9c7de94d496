// What a measurement says, for people and for programs: the same figures as a table or as JSON.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "tools/bench/ceilings.hpp"
#include "tools/bench/host_cpu.hpp"
#include "tools/bench/interleaved_runs.hpp"

namespace modalkv {

/// Figures in the order they were added. A key ends in its unit.
class BenchReport {
 public:
  void add(std::string_view key, nlohmann::ordered_json value);
  /// A report on a part of what was measured, under "parts".
  void add_part(BenchReport part);

  nlohmann::ordered_json json() const;
  /// A row a figure, blanks for the underscores of its key; then the parts.
  std::string table() const;

 private:
  nlohmann::ordered_json figures_ = nlohmann::ordered_json::object();
  std::vector<BenchReport> parts_;
};

/// "schema_version", "command_line" and the machine.
BenchReport begin_report(std::string_view command_line, const HostCpu& cpu, int threads);

/// Runs, their spread, and with `bytes_per_run` the rate at the median.
void add_times(BenchReport& report, const RoundTimes& times, Bytes bytes_per_run);

/// The read ceiling with its spread, the copy ceiling and both dot-product peaks, of all threads
/// together.
void add_ceilings(BenchReport& report, const Ceilings& ceilings);

}  // namespace modalkv
