// What a simulation is told as: a table for a person, and the files of an output folder. Everything
// here is a pure function of a Report.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "tools/report/metrics.hpp"

namespace modalkv {

/// One policy at one rate.
struct PolicyRun {
  ReplayResult result;
  Metrics metrics;
  double replay_wall_s = 0;
  /// How many times shorter the mean TTFT and TPOT are than a baseline's, over the requests that
  /// all policies of this rate completed; nothing where the baseline was not run.
  struct Gain {
    double ttft = 0, tpot = 0;
  };
  std::optional<Gain> over_stream{}, over_offload{};
};

struct Report {
  std::string command_line;
  std::string model, hardware;
  std::string trace_name{}, trace_format{};
  std::int64_t requests = 0, skipped_rows = 0;
  Tokens context_tokens = 0;
  std::string image_tokens;  ///< "trace" or "model"
  std::string admission;     ///< "throughput" or "memory"
  Slo slo;
  std::uint64_t seed = 0;
  double perturb = 0;
  std::vector<PolicyRun> runs{};  ///< by rate, then in the order asked for
  std::vector<std::int64_t>
      common_requests{};  ///< one a run: completed by all policies of its rate
  double wall_s = 0;      ///< reading, replaying and writing, all but summary.json
};

/// Fills metrics, gains and common_requests from the results.
void complete(Report& report);

/// Of all runs together.
std::uint64_t digest_of(const Report& report);

std::string comparison_table(const Report& report);
std::string summary_json(const Report& report);
std::string requests_csv(const Report& report);
std::string timeline_json(const Report& report);
std::string report_html(const Report& report);

}  // namespace modalkv
