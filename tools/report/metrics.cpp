#include "tools/report/metrics.hpp"

#include <algorithm>
#include <cmath>

namespace modalkv {
namespace {

double ms(Nanos ns) {
  return static_cast<double>(ns) / static_cast<double>(kMillisecond);
}

}  // namespace

RequestLatency latency_of(const RequestOutcome& outcome) {
  RequestLatency latency{.ttft_ms = ms(outcome.first_token_ns - outcome.arrival_ns),
                         .e2el_ms = ms(outcome.finish_ns - outcome.arrival_ns)};
  if (outcome.output_tokens > 1)
    latency.tpot_ms = ms(outcome.finish_ns - outcome.first_token_ns) /
                      static_cast<double>(outcome.output_tokens - 1);
  return latency;
}

bool meets(const Slo& slo, const RequestLatency& latency) {
  return (!slo.ttft_ms || latency.ttft_ms <= *slo.ttft_ms) &&
         (!slo.tpot_ms || latency.tpot_ms.value_or(0) <= *slo.tpot_ms) &&
         (!slo.e2el_ms || latency.e2el_ms <= *slo.e2el_ms);
}

double percentile(const std::vector<double>& ascending, double percent) {
  if (ascending.empty()) return 0;
  const double rank = percent / 100 * static_cast<double>(ascending.size() - 1);
  const auto below = static_cast<std::size_t>(rank);
  if (below + 1 >= ascending.size()) return ascending.back();
  const double part = rank - static_cast<double>(below);
  return ascending[below] + part * (ascending[below + 1] - ascending[below]);
}

LatencySummary summarize(const std::vector<double>& ascending) {
  LatencySummary summary;
  if (ascending.empty()) return summary;
  const auto count = static_cast<double>(ascending.size());
  for (const double value : ascending) summary.mean += value / count;
  double squares = 0;
  for (const double value : ascending) squares += (value - summary.mean) * (value - summary.mean);
  summary.standard_deviation = std::sqrt(squares / count);
  for (std::size_t p = 0; p < summary.percentiles.size(); ++p)
    summary.percentiles[p] = percentile(ascending, LatencySummary::kPercentiles[p]);
  return summary;
}

Metrics metrics_of(const ReplayResult& result, const Slo& slo) {
  Metrics metrics;
  metrics.duration_s = static_cast<double>(result.totals.duration_ns) / 1e9;
  for (const RequestOutcome& outcome : result.outcomes) {
    if (outcome.state == RequestState::beyond_context) ++metrics.beyond_context;
    if (outcome.state == RequestState::too_large) ++metrics.too_large;
    if (outcome.state != RequestState::completed) continue;
    const RequestLatency latency = latency_of(outcome);
    ++metrics.completed;
    metrics.good += meets(slo, latency);
    metrics.input_tokens += outcome.prompt_tokens;
    metrics.output_tokens += outcome.output_tokens;
    metrics.ttft_ms.push_back(latency.ttft_ms);
    metrics.e2el_ms.push_back(latency.e2el_ms);
    if (latency.tpot_ms) metrics.tpot_ms.push_back(*latency.tpot_ms);
  }
  for (auto* values : {&metrics.ttft_ms, &metrics.tpot_ms, &metrics.e2el_ms})
    std::sort(values->begin(), values->end());
  metrics.ttft = summarize(metrics.ttft_ms);
  metrics.tpot = summarize(metrics.tpot_ms);
  metrics.e2el = summarize(metrics.e2el_ms);
  metrics.itl.mean = result.itl_ns.mean_ns() / 1e6;
  metrics.itl.standard_deviation = result.itl_ns.standard_deviation_ns() / 1e6;
  for (std::size_t p = 0; p < metrics.itl.percentiles.size(); ++p)
    metrics.itl.percentiles[p] =
        result.itl_ns.quantile_ns(LatencySummary::kPercentiles[p] / 100.0) / 1e6;
  return metrics;
}

CommonRequests compare(const std::vector<const ReplayResult*>& results) {
  CommonRequests common{.count = 0, .means = std::vector<CommonMeans>(results.size())};
  if (results.empty()) return common;
  std::int64_t with_tpot = 0;
  for (std::size_t i = 0; i < results.front()->outcomes.size(); ++i) {
    const bool everywhere =
        std::all_of(results.begin(), results.end(), [&](const ReplayResult* result) {
          return result->outcomes[i].state == RequestState::completed;
        });
    if (!everywhere) continue;
    ++common.count;
    with_tpot += results.front()->outcomes[i].output_tokens > 1;
    for (std::size_t r = 0; r < results.size(); ++r) {
      const RequestLatency latency = latency_of(results[r]->outcomes[i]);
      common.means[r].ttft_ms += latency.ttft_ms;
      common.means[r].tpot_ms += latency.tpot_ms.value_or(0);
    }
  }
  for (CommonMeans& means : common.means) {
    means.ttft_ms /= static_cast<double>(std::max<std::int64_t>(1, common.count));
    means.tpot_ms /= static_cast<double>(std::max<std::int64_t>(1, with_tpot));
  }
  return common;
}

}  // namespace modalkv
