// A self-contained page: no file, script or font from anywhere else. Drawn as SVG here, so that it
// needs no script.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <functional>

#include "tools/report/report.hpp"
#include "tools/report/svg_chart.hpp"

namespace modalkv {
namespace {

constexpr std::size_t kCurvePoints = 120;

constexpr std::string_view kStyle = R"(
:root{color-scheme:light dark;--ink:#1a1d21;--soft:#5d6570;--line:#d9dde3;--paper:#fff;--panel:#f6f7f9}
@media(prefers-color-scheme:dark){:root{--ink:#e8eaed;--soft:#a2abb6;--line:#3a414a;--paper:#15181c;--panel:#1d2126}}
body{margin:0 auto;max-width:1240px;padding:28px 20px 60px;font:15px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--paper)}
h1{font-size:24px;margin:0 0 2px}h2{font-size:17px;margin:34px 0 8px}p{margin:6px 0;color:var(--soft)}
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums;font-size:13.5px}
th,td{padding:5px 7px;text-align:right;border-bottom:1px solid var(--line)}td{white-space:nowrap}
th{color:var(--soft);font-weight:600;vertical-align:bottom}th:first-child,td:first-child{text-align:left}
.scroll{overflow-x:auto}.grid{display:grid;grid-template-columns:repeat(auto-fit,minmax(340px,1fr));gap:16px}
figure{margin:0;padding:12px 14px;background:var(--panel);border-radius:8px}figcaption{font-weight:600;font-size:13.5px}
svg{width:100%;height:auto;display:block}svg text{fill:var(--soft);font-size:11px}
svg .axis{stroke:var(--line);stroke-width:1}svg polyline{fill:none;stroke-width:2}
.key{display:flex;flex-wrap:wrap;gap:4px 16px;margin:10px 0 14px;font-size:13.5px}
.key i{display:inline-block;width:22px;height:0;border-top:3px solid;vertical-align:middle;margin-right:6px}
.warn{color:#c2410c;font-weight:600}@media(prefers-color-scheme:dark){.warn{color:#fb923c}}
)";

std::string escaped(std::string_view text) {
  std::string out;
  for (const char c : text) {
    if (c == '&')
      out += "&amp;";
    else if (c == '<')
      out += "&lt;";
    else if (c == '>')
      out += "&gt;";
    else if (c == '"')
      out += "&quot;";
    else
      out += c;
  }
  return out;
}

std::string label(const PolicyRun& run, bool rates) {
  return rates ? fmt::format("{} x{:g}", run.result.policy, run.result.rate_scale)
               : run.result.policy;
}

std::string figure(std::string_view caption, const std::string& svg) {
  return fmt::format("<figure><figcaption>{}</figcaption>{}</figure>\n", escaped(caption), svg);
}

// Curves of every rate at once would be unreadable: the runs of the highest rate that some policy
// keeps up with, or where none keeps up with any, of the lowest.
std::vector<const PolicyRun*> telling_runs(const Report& report) {
  double rate = 0, lowest = report.runs.front().result.rate_scale;
  for (const PolicyRun& run : report.runs) {
    lowest = std::min(lowest, run.result.rate_scale);
    if (!run.result.saturated) rate = std::max(rate, run.result.rate_scale);
  }
  if (rate == 0) rate = lowest;
  std::vector<const PolicyRun*> runs;
  for (const PolicyRun& run : report.runs)
    if (run.result.rate_scale == rate) runs.push_back(&run);
  return runs;
}

std::string headline(const Report& report, bool rates) {
  std::string out =
      "<div class=scroll><table><tr><th>policy<th>completed<th>not run<th>TTFT mean "
      "ms<th>p99<th>TPOT mean "
      "ms<th>p99<th>tokens/s<th>KV bits<th>GPU KV GiB<th>host KV GiB<th>link use<th>TTFT vs "
      "fp16-stream<th>TPOT vs fp16-stream<th>TTFT vs fp16-offload<th>TPOT vs fp16-offload</tr>\n";
  const auto gib = [](Bytes bytes) { return static_cast<double>(bytes) / kGiB; };
  for (const PolicyRun& run : report.runs) {
    const Metrics& m = run.metrics;
    const ReplayTotals& t = run.result.totals;
    const auto times = [](const std::optional<PolicyRun::Gain>& gain, bool ttft) {
      return gain ? fmt::format("{:.2f}x", ttft ? gain->ttft : gain->tpot) : std::string("-");
    };
    out += fmt::format(
        "<tr><td>{}{}<td>{}<td>{}<td>{:.1f}<td>{:.1f}<td>{:.1f}<td>{:.1f}<td>{:.0f}<td>{:.2f}<td>{:"
        ".2f}"
        "<td>{:.2f}<td>{:.0f} %<td>{}<td>{}<td>{}<td>{}</tr>\n",
        escaped(label(run, rates)),
        run.result.saturated ? " <span class=warn>saturated</span>" : "", m.completed,
        m.beyond_context + m.too_large, m.ttft.mean, m.ttft.percentiles.back(), m.tpot.mean,
        m.tpot.percentiles.back(), m.per_second(static_cast<double>(m.output_tokens)),
        t.kv_element_bits, gib(t.peak_device_kv_bytes), gib(t.peak_host_kv_bytes),
        t.duration_ns > 0
            ? 100 * static_cast<double>(t.h2d_busy_ns) / static_cast<double>(t.duration_ns)
            : 0,
        times(run.over_stream, true), times(run.over_stream, false), times(run.over_offload, true),
        times(run.over_offload, false));
  }
  return out + "</table></div>\n";
}

SvgChart cdf(const std::vector<const PolicyRun*>& runs, std::string_view unit,
             std::vector<double> Metrics::*values, std::optional<double> slo_ms) {
  SvgChart chart({.x_title = std::string(unit),
                  .y_title = "share of requests",
                  .log_x = true,
                  .log_y = false});
  for (std::size_t r = 0; r < runs.size(); ++r) {
    const std::vector<double>& ascending = runs[r]->metrics.*values;
    std::vector<SvgPoint> points;
    for (std::size_t p = 0; p <= kCurvePoints && !ascending.empty(); ++p) {
      const double share = static_cast<double>(p) / kCurvePoints;
      points.push_back({std::max(1e-3, percentile(ascending, 100 * share)), share});
    }
    chart.line(r, std::move(points));
  }
  if (slo_ms) chart.vertical_rule(*slo_ms, "SLO");
  return chart;
}

SvgChart over_time(const std::vector<const PolicyRun*>& runs, std::string_view unit,
                   const std::function<double(const StepRecord&)>& value) {
  SvgChart chart({.x_title = "simulated minutes", .y_title = std::string(unit)});
  for (std::size_t r = 0; r < runs.size(); ++r) {
    const auto& series = runs[r]->result.series;
    const std::size_t stride = std::max<std::size_t>(1, series.size() / kCurvePoints);
    std::vector<SvgPoint> points;
    for (std::size_t i = 0; i < series.size(); i += stride)
      points.push_back({static_cast<double>(series[i].begin_ns) / 60e9, value(series[i])});
    chart.line(r, std::move(points));
  }
  return chart;
}

SvgChart against_rate(const Report& report, std::size_t policies, std::string_view unit,
                      const std::function<double(const PolicyRun&)>& value,
                      std::optional<double> slo, bool log_y) {
  SvgChart chart(
      {.x_title = "rate scale", .y_title = std::string(unit), .log_x = false, .log_y = log_y});
  for (std::size_t p = 0; p < policies; ++p) {
    std::vector<SvgPoint> points;
    for (std::size_t i = p; i < report.runs.size(); i += policies)
      points.push_back({report.runs[i].result.rate_scale, value(report.runs[i])});
    chart.line(p, std::move(points));
  }
  if (slo) chart.horizontal_rule(*slo, "SLO");
  return chart;
}

std::string key(const std::vector<const PolicyRun*>& runs) {
  std::string out = "<div class=key>";
  for (std::size_t r = 0; r < runs.size(); ++r)
    out += fmt::format("<span><i style=\"border-color:{};border-top-style:{}\"></i>{}</span>",
                       SvgChart::color(r), SvgChart::dashed(r) ? "dashed" : "solid",
                       escaped(runs[r]->result.policy));
  return out + "</div>\n";
}

}  // namespace

std::string report_html(const Report& report) {
  const auto runs = telling_runs(report);
  const bool rates = runs.size() < report.runs.size();
  const std::string at_rate =
      rates ? fmt::format(" (rate {:g})", runs.front()->result.rate_scale) : "";
  const ReplayCapacity& capacity = report.runs.front().result.capacity;
  const auto gib = [](Bytes bytes) { return static_cast<double>(bytes) / kGiB; };

  std::string out =
      "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport "
      "content=\"width=device-width\"><title>modalkv simulate</title><style>";
  out += kStyle;
  out += "</style>\n";
  out += fmt::format(
      "<h1>{} on {}</h1><p>{} requests of {}. Simulated, not measured; quality is not "
      "measured here.</p>\n",
      escaped(report.model), escaped(report.hardware), report.requests, escaped(report.trace_name));
  out += fmt::format(
      "<p>16-bit KV takes {} bytes a token; the weights leave {:.2f} GiB of the GPU for KV and "
      "staging, "
      "that is {} tokens in 16 bits. Gains are times shorter, over the requests that all policies "
      "completed ({}{}).</p>\n",
      capacity.kv_bytes_per_token, gib(capacity.device_kv_budget_bytes),
      capacity.device_tokens_16bit,
      report.common_requests[static_cast<std::size_t>(runs.front() - report.runs.data())], at_rate);
  out += headline(report, rates);

  out += fmt::format("<h2>Latency{}</h2>", at_rate) + key(runs) + "<div class=grid>\n";
  out +=
      figure("Time to first token", cdf(runs, "ms", &Metrics::ttft_ms, report.slo.ttft_ms).str());
  out +=
      figure("Time per output token", cdf(runs, "ms", &Metrics::tpot_ms, report.slo.tpot_ms).str());
  out += figure("End to end", cdf(runs, "ms", &Metrics::e2el_ms, report.slo.e2el_ms).str());
  out += "</div>\n";

  if (rates) {
    out += "<h2>Against the rate</h2>" + key(runs) + "<div class=grid>\n";
    out += figure("Median time to first token",
                  against_rate(
                      report, runs.size(), "ms",
                      [](const PolicyRun& run) { return run.metrics.ttft.percentiles[0]; },
                      report.slo.ttft_ms, true)
                      .str());
    out += figure(
        "Mean time per output token",
        against_rate(
            report, runs.size(), "ms", [](const PolicyRun& run) { return run.metrics.tpot.mean; },
            report.slo.tpot_ms, false)
            .str());
    out += figure(report.slo.any() ? "Goodput" : "Throughput",
                  against_rate(
                      report, runs.size(), "requests/s",
                      [&](const PolicyRun& run) {
                        return run.metrics.per_second(static_cast<double>(
                            report.slo.any() ? run.metrics.good : run.metrics.completed));
                      },
                      std::nullopt, false)
                      .str());
    out += "</div>\n";
  }

  out += fmt::format("<h2>Memory and link over time{}</h2>", at_rate) + key(runs) +
         "<div class=grid>\n";
  out += figure("KV in GPU memory, staging included",
                over_time(runs, "GiB", [&](const StepRecord& step) {
                  return gib(step.device_kv_bytes + step.staging_bytes);
                }).str());
  out += figure("KV in host memory", over_time(runs, "GiB", [&](const StepRecord& step) {
                                       return gib(step.host_kv_bytes + step.reuse_bytes);
                                     }).str());
  out += figure("Host-to-device link",
                over_time(runs, "% busy", [](const StepRecord& step) {
                  const auto length =
                      static_cast<double>(std::max<Nanos>(1, step.end_ns - step.begin_ns));
                  return std::min(100.0, 100 * static_cast<double>(step.h2d_busy_ns) / length);
                }).str());
  out += figure("Requests waiting", over_time(runs, "requests", [](const StepRecord& step) {
                                      return static_cast<double>(step.waiting_requests);
                                    }).str());
  out += "</div>\n<h2>How this was made</h2>\n";
  out += fmt::format(
      "<p><code>{}</code></p><p>Image tokens: from the {}. Admission: {}. Seed {}. Digest "
      "{:016x}. Curves are thinned to {} points; every request is in requests.csv.</p>\n",
      escaped(report.command_line), report.image_tokens, report.admission, report.seed,
      digest_of(report), kCurvePoints);
  return out;
}

}  // namespace modalkv
