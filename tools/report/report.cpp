#include "tools/report/report.hpp"

namespace modalkv {
namespace {

PolicyRun::Gain gain_over(const CommonMeans& baseline, const CommonMeans& policy) {
  return {.ttft = policy.ttft_ms > 0 ? baseline.ttft_ms / policy.ttft_ms : 0,
          .tpot = policy.tpot_ms > 0 ? baseline.tpot_ms / policy.tpot_ms : 0};
}

void complete_rate(Report& report, std::size_t first, std::size_t last) {
  std::vector<const ReplayResult*> results;
  for (std::size_t i = first; i < last; ++i) results.push_back(&report.runs[i].result);
  const CommonRequests common = compare(results);
  for (std::size_t i = first; i < last; ++i) {
    PolicyRun& run = report.runs[i];
    run.metrics = metrics_of(run.result, report.slo);
    report.common_requests.push_back(common.count);
    run.over_stream = run.over_offload = std::nullopt;
    for (std::size_t b = 0; b < results.size(); ++b) {
      const auto gain = gain_over(common.means[b], common.means[i - first]);
      if (results[b]->policy == "fp16-stream") run.over_stream = gain;
      if (results[b]->policy == "fp16-offload") run.over_offload = gain;
    }
  }
}

}  // namespace

void complete(Report& report) {
  report.common_requests.clear();
  for (std::size_t first = 0; first < report.runs.size();) {
    std::size_t last = first;
    while (last < report.runs.size() &&
           report.runs[last].result.rate_scale == report.runs[first].result.rate_scale)
      ++last;
    complete_rate(report, first, last);
    first = last;
  }
}

std::uint64_t digest_of(const Report& report) {
  std::uint64_t digest = 14695981039346656037u;  // FNV-1a over the runs' digests
  for (const PolicyRun& run : report.runs) digest = (digest ^ run.result.digest) * 1099511628211u;
  return digest;
}

}  // namespace modalkv
