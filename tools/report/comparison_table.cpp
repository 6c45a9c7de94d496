#include <fmt/format.h>

#include <algorithm>

#include "tools/report/report.hpp"
#include "tools/report/text_table.hpp"

namespace modalkv {
namespace {

double gib(Bytes bytes) {
  return static_cast<double>(bytes) / static_cast<double>(kGiB);
}

std::string duration(double ms) {
  if (ms >= 600'000) return fmt::format("{:.0f} min", ms / 60'000);
  if (ms >= 10'000) return fmt::format("{:.1f} s", ms / 1'000);
  return ms >= 100 ? fmt::format("{:.0f} ms", ms) : fmt::format("{:.1f} ms", ms);
}

std::string gain(const std::optional<PolicyRun::Gain>& gain, double PolicyRun::Gain::*part) {
  if (!gain) return "-";
  const double value = (*gain).*part;
  return value >= 100 ? fmt::format("{:.0f}x", value) : fmt::format("{:.2f}x", value);
}

// What the others are compared with, where it was run.
struct Baseline {
  const char* title;
  const char* policy;
  std::optional<PolicyRun::Gain> PolicyRun::*gain;
};

std::vector<Baseline> baselines_run(const Report& report) {
  std::vector<Baseline> found;
  for (const Baseline& baseline : {Baseline{"stream", "fp16-stream", &PolicyRun::over_stream},
                                   Baseline{"offload", "fp16-offload", &PolicyRun::over_offload}})
    if (std::any_of(report.runs.begin(), report.runs.end(),
                    [&](const PolicyRun& run) { return run.result.policy == baseline.policy; }))
      found.push_back(baseline);
  return found;
}

std::string not_run(const Metrics& metrics) {
  if (metrics.beyond_context + metrics.too_large == 0) return "";
  return fmt::format(" (-{})", metrics.beyond_context + metrics.too_large);
}

std::string notes(const Report& report) {
  std::string out;
  std::int64_t beyond = 0;
  for (const PolicyRun& run : report.runs) beyond = std::max(beyond, run.metrics.beyond_context);
  if (beyond > 0)
    out += fmt::format("{} requests exceed the model's context of {} tokens and were not run.\n",
                       beyond, report.context_tokens);
  for (const PolicyRun& run : report.runs)
    if (run.metrics.too_large > 0)
      out += fmt::format("{}: {} requests need more KV than it can hold and were not run.\n",
                         run.result.policy, run.metrics.too_large);
  if (report.skipped_rows > 0)
    out += fmt::format("{} bad rows of the trace were left out.\n", report.skipped_rows);
  for (const PolicyRun& run : report.runs)
    if (run.result.saturated) {
      out +=
          "SATURATED: requests arrive faster than this policy serves them; its latencies grow with "
          "the length of the trace.\n";
      break;
    }
  return out;
}

}  // namespace

std::string comparison_table(const Report& report) {
  const ReplayCapacity& capacity = report.runs.front().result.capacity;
  std::string out = fmt::format(
      "{} on {}: {} requests of {}\n16-bit KV takes {} B a token; weights {:.1f} GiB, GPU budget "
      "for "
      "KV {:.2f} GiB = {} tokens\n\n",
      report.model, report.hardware, report.requests, report.trace_name,
      capacity.kv_bytes_per_token, gib(capacity.weight_bytes), gib(capacity.device_kv_budget_bytes),
      capacity.device_tokens_16bit);

  const bool rates = report.runs.front().result.rate_scale != report.runs.back().result.rate_scale;
  std::vector<TextTable::Column> columns;
  if (rates) columns.push_back({"rate"});
  columns.push_back({"policy", TextTable::Align::left});
  for (const char* title : {"done", "TTFT mean", "p99", "TPOT mean", "p99", "tokens/s"})
    columns.push_back({title});
  if (report.slo.any()) columns.push_back({"good/s"});
  for (const char* title : {"KV bits", "GPU GiB", "host GiB"}) columns.push_back({title});
  const std::vector<Baseline> baselines = baselines_run(report);
  for (const Baseline& baseline : baselines) {
    columns.push_back({fmt::format("TTFT/{}", baseline.title)});
    columns.push_back({fmt::format("TPOT/{}", baseline.title)});
  }
  columns.push_back({"", TextTable::Align::left});

  TextTable table(columns);
  double previous_rate = report.runs.front().result.rate_scale;
  for (const PolicyRun& run : report.runs) {
    const ReplayResult& result = run.result;
    const Metrics& metrics = run.metrics;
    if (result.rate_scale != previous_rate) table.add_rule();
    previous_rate = result.rate_scale;
    std::vector<std::string> cells;
    if (rates) cells.push_back(fmt::format("{:g}", result.rate_scale));
    cells.push_back(result.policy);
    cells.push_back(fmt::format("{}{}", metrics.completed, not_run(metrics)));
    cells.push_back(duration(metrics.ttft.mean));
    cells.push_back(duration(metrics.ttft.percentiles.back()));
    cells.push_back(duration(metrics.tpot.mean));
    cells.push_back(duration(metrics.tpot.percentiles.back()));
    cells.push_back(
        fmt::format("{:.0f}", metrics.per_second(static_cast<double>(metrics.output_tokens))));
    if (report.slo.any())
      cells.push_back(fmt::format("{:.2f}", metrics.per_second(static_cast<double>(metrics.good))));
    cells.push_back(fmt::format("{:.2f}", result.totals.kv_element_bits));
    cells.push_back(fmt::format("{:.2f}", gib(result.totals.peak_device_kv_bytes)));
    cells.push_back(fmt::format("{:.2f}", gib(result.totals.peak_host_kv_bytes)));
    for (const Baseline& baseline : baselines) {
      cells.push_back(gain(run.*baseline.gain, &PolicyRun::Gain::ttft));
      cells.push_back(gain(run.*baseline.gain, &PolicyRun::Gain::tpot));
    }
    cells.push_back(result.saturated ? "SATURATED" : "");
    table.add_row(cells);
  }
  out += table.str() + "\n" + notes(report);
  if (report.slo.any()) out += "good/s: requests a second that met every objective of --slo.\n";
  for (const Baseline& baseline : baselines)
    out += fmt::format("TTFT/{0}, TPOT/{0}: how many times shorter the mean is than under {1}.\n",
                       baseline.title, baseline.policy);
  if (!baselines.empty())
    out += fmt::format("Compared over the {} requests that all policies completed{}.\n",
                       report.common_requests.front(), rates ? " at the first rate" : "");
  out += fmt::format(
      "Simulated, not measured{}. Quality: not measured here. Image tokens: from the {}. "
      "Admission: {}.\n",
      report.perturb > 0 ? fmt::format(" (machine perturbed by up to {:g} %)", 100 * report.perturb)
                         : "",
      report.image_tokens, report.admission);
  return out;
}

}  // namespace modalkv
