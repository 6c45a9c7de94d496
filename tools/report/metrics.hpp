// Latency metrics of a replay, named and defined as `vllm bench serve` does.
#pragma once

#include <array>
#include <optional>
#include <vector>

#include "runtime/replay_result.hpp"

namespace modalkv {

/// Service-level objectives; a request is good when it meets all that are set.
struct Slo {
  std::optional<double> ttft_ms, tpot_ms, e2el_ms;

  bool any() const { return ttft_ms || tpot_ms || e2el_ms; }
};

/// Of one request that completed. TPOT = (last - first token) / (output - 1); none for a single
/// token.
struct RequestLatency {
  double ttft_ms = 0;
  std::optional<double> tpot_ms{};
  double e2el_ms = 0;
};

RequestLatency latency_of(const RequestOutcome& outcome);
bool meets(const Slo& slo, const RequestLatency& latency);

/// Percentiles interpolate linearly between ranks, as numpy does.
struct LatencySummary {
  static constexpr std::array kPercentiles{50, 90, 95, 99};
  double mean = 0;
  double standard_deviation = 0;
  std::array<double, kPercentiles.size()> percentiles{};
};

/// `percent` in [0, 100] of ascending values; 0 where there are none.
double percentile(const std::vector<double>& ascending, double percent);
LatencySummary summarize(const std::vector<double>& ascending);

struct Metrics {
  std::vector<double> ttft_ms, tpot_ms, e2el_ms;  ///< ascending, of completed requests
  LatencySummary ttft, tpot, e2el, itl;
  std::int64_t completed = 0, beyond_context = 0, too_large = 0, good = 0;
  Tokens input_tokens = 0, output_tokens = 0;  ///< of completed requests
  double duration_s = 0;

  double per_second(double count) const { return duration_s > 0 ? count / duration_s : 0; }
};

Metrics metrics_of(const ReplayResult& result, const Slo& slo);

/// Means over one set of requests, so that policies can be compared like with like.
struct CommonMeans {
  double ttft_ms = 0;
  double tpot_ms = 0;
};

/// Which requests every one of `results` (of one rate) completed, and each result's means over
/// them.
struct CommonRequests {
  std::int64_t count = 0;
  std::vector<CommonMeans> means;  ///< in the order of the results
};

CommonRequests compare(const std::vector<const ReplayResult*>& results);

}  // namespace modalkv
