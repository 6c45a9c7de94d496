#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "modalkv/version.hpp"
#include "tools/report/report.hpp"

namespace modalkv {
namespace {

using Json = nlohmann::ordered_json;

void put_latency(Json& json, const char* name, const LatencySummary& summary) {
  json[fmt::format("mean_{}_ms", name)] = summary.mean;
  json[fmt::format("median_{}_ms", name)] = summary.percentiles[0];
  json[fmt::format("std_{}_ms", name)] = summary.standard_deviation;
  for (std::size_t p = 0; p < summary.percentiles.size(); ++p)
    json[fmt::format("p{}_{}_ms", LatencySummary::kPercentiles[p], name)] = summary.percentiles[p];
}

Json gain_json(const std::optional<PolicyRun::Gain>& gain) {
  if (!gain) return nullptr;
  return {{"ttft", gain->ttft}, {"tpot", gain->tpot}};
}

double share(Nanos part, Nanos whole) {
  return whole > 0 ? static_cast<double>(part) / static_cast<double>(whole) : 0;
}

Json run_json(const Report& report, std::size_t index) {
  const PolicyRun& run = report.runs[index];
  const ReplayResult& result = run.result;
  const ReplayTotals& totals = result.totals;
  const Metrics& metrics = run.metrics;
  Json json{
      {"policy", result.policy},
      {"rate_scale", result.rate_scale},
      {"digest", fmt::format("{:016x}", result.digest)},
      {"duration", metrics.duration_s},
      {"completed", metrics.completed},
      {"not_run", {{"beyond_context", metrics.beyond_context}, {"too_large", metrics.too_large}}},
      {"saturated", result.saturated},
      {"total_input_tokens", metrics.input_tokens},
      {"total_output_tokens", metrics.output_tokens},
      {"request_throughput", metrics.per_second(static_cast<double>(metrics.completed))},
      {"request_goodput", report.slo.any()
                              ? Json(metrics.per_second(static_cast<double>(metrics.good)))
                              : Json(nullptr)},
      {"output_throughput", metrics.per_second(static_cast<double>(metrics.output_tokens))},
      {"total_token_throughput",
       metrics.per_second(static_cast<double>(metrics.input_tokens + metrics.output_tokens))}};
  put_latency(json, "ttft", metrics.ttft);
  put_latency(json, "tpot", metrics.tpot);
  put_latency(json, "itl", metrics.itl);
  put_latency(json, "e2el", metrics.e2el);
  json["compared_requests"] = report.common_requests[index];
  json["times_shorter_than_fp16_stream"] = gain_json(run.over_stream);
  json["times_shorter_than_fp16_offload"] = gain_json(run.over_offload);
  json["kv_bits_per_element"] = totals.kv_element_bits;
  json["iterations"] = totals.iterations;
  json["preemptions"] = totals.preemptions;
  json["replans"] = totals.replans;
  json["prefill_tokens"] = totals.prefill_tokens;
  json["reused_tokens"] = totals.reused_tokens;
  json["device_kv_budget_bytes"] = result.capacity.device_kv_budget_bytes;
  json["host_kv_budget_bytes"] = result.capacity.host_kv_budget_bytes;
  json["kv_bytes_per_token_16bit"] = result.capacity.kv_bytes_per_token;
  json["peak_device_kv_bytes"] = totals.peak_device_kv_bytes;
  json["peak_host_kv_bytes"] = totals.peak_host_kv_bytes;
  json["h2d_bytes"] = totals.h2d_bytes;
  json["d2h_bytes"] = totals.d2h_bytes;
  json["gpu_utilization"] = share(totals.gpu_busy_ns, totals.duration_ns);
  json["h2d_utilization"] = share(totals.h2d_busy_ns, totals.duration_ns);
  json["d2h_utilization"] = share(totals.d2h_busy_ns, totals.duration_ns);
  json["cpu_attention_utilization"] = share(totals.cpu_busy_ns, totals.duration_ns);
  json["vision_encoder_s"] = static_cast<double>(totals.vision_ns) / 1e9;
  json["predicted_step_error"] = totals.predicted_step_error;
  // With one policy its wall time is the whole run's, files included; with several, its replay's.
  const double wall_s = report.runs.size() == 1 ? report.wall_s : run.replay_wall_s;
  json["wall_seconds"] = wall_s;
  json["requests_per_wall_second"] =
      wall_s > 0 ? static_cast<double>(result.outcomes.size()) / wall_s : 0;
  json["iterations_per_wall_second"] =
      wall_s > 0 ? static_cast<double>(totals.iterations) / wall_s : 0;
  return json;
}

Json slo_json(const Slo& slo) {
  Json json = Json::object();
  if (slo.ttft_ms) json["ttft_ms"] = *slo.ttft_ms;
  if (slo.tpot_ms) json["tpot_ms"] = *slo.tpot_ms;
  if (slo.e2el_ms) json["e2el_ms"] = *slo.e2el_ms;
  return json;
}

}  // namespace

std::string summary_json(const Report& report) {
  Json json{
      {"schema_version", 1},
      {"modalkv_version", fmt::format("{}.{}.{}", kHeaderVersion.major_number,
                                      kHeaderVersion.minor_number, kHeaderVersion.patch_number)},
      {"simulated", true},
      {"command_line", report.command_line},
      {"seed", report.seed},
      {"digest", fmt::format("{:016x}", digest_of(report))},
      {"units",
       {{"_ms", "milliseconds of simulated time"},
        {"duration", "seconds of simulated time"},
        {"throughput, goodput", "per second of simulated time"},
        {"_bytes", "bytes"},
        {"_utilization", "share of simulated time"},
        {"wall", "seconds of real time of the simulator"}}},
      {"model", report.model},
      {"hardware", report.hardware},
      {"trace",
       {{"name", report.trace_name},
        {"format", report.trace_format},
        {"requests", report.requests},
        {"skipped_rows", report.skipped_rows}}},
      {"image_tokens", report.image_tokens},
      {"admission", report.admission},
      {"perturb", report.perturb},
      {"slo", slo_json(report.slo)},
      {"quality", "not measured"},
      {"wall_seconds", report.wall_s}};
  json["policies"] = Json::array();
  for (std::size_t i = 0; i < report.runs.size(); ++i)
    json["policies"].push_back(run_json(report, i));
  return json.dump(2) + "\n";
}

}  // namespace modalkv
