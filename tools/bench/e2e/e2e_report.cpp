#include "tools/bench/e2e/e2e_report.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <string_view>

#include "tools/report/text_table.hpp"

namespace modalkv {
namespace {

using Json = nlohmann::ordered_json;

// All speed-ups are over these.
constexpr std::string_view kBaselines[] = {"fp16-offload", "fp16-stream"};

std::string with_spread(const TimeSpread& spread) {
  return fmt::format("{:.1f} ({:.1f}-{:.1f})", spread.median, spread.p10, spread.p90);
}

void add_spread(Json& json, std::string_view name, const TimeSpread& spread) {
  json[fmt::format("{}_median_ms", name)] = spread.median;
  json[fmt::format("{}_p10_ms", name)] = spread.p10;
  json[fmt::format("{}_p90_ms", name)] = spread.p90;
}

double mib(Bytes bytes) {
  return static_cast<double>(bytes) / static_cast<double>(kMiB);
}

// How far copies of a step alone, at the link's best rate, fill its time.
double link_share(const E2eReport& report, const E2ePolicyResult& result) {
  const double copies_s =
      static_cast<double>(result.streamed_bytes_a_step) / report.profile.link.h2d_bytes_per_s.value;
  return copies_s * 1e3 / result.tpot_ms.median;
}

}  // namespace

const E2ePolicyResult* E2eReport::find(std::string_view policy) const {
  const auto found = std::find_if(policies.begin(), policies.end(),
                                  [&](const auto& result) { return result.policy == policy; });
  return found == policies.end() ? nullptr : &*found;
}

Json E2eReport::json() const {
  Json all = head.json();
  all["machine"] = machine;
  all["model"] = load.model.name;
  all["layers"] = load.model.layers;
  all["batch"] = load.batch;
  all["image_tokens"] = load.image_tokens;
  all["text_tokens"] = load.text_tokens;
  all["chunk_tokens"] = load.chunk_tokens;
  all["decode_steps"] = load.decode_steps;
  all["rounds"] = rounds;
  all["device_kv_budget_bytes"] = load.device_budget_bytes;
  all["workspace_bytes"] = workspace_bytes(load);
  all["fp16_kv_bytes"] = load.kv_bytes();
  Json& measured = all["measured_machine"];
  measured["h2d_bytes_per_s"] = profile.link.h2d_bytes_per_s.value;
  measured["d2h_bytes_per_s"] = profile.link.d2h_bytes_per_s.value;
  for (const LinkPoint& point : profile.link.piece_table.value)
    measured["h2d_by_piece"].push_back(
        {{"piece_bytes", point.descriptor_bytes}, {"bytes_per_s", point.bytes_per_s}});
  measured["memory_bytes_per_s"] = profile.gpu.memory_bytes_per_s.value;
  measured["attention_share_of_memory"] = profile.gpu.efficiency.attention_memory.value;
  measured["weights_share_of_memory"] = profile.gpu.efficiency.gemm_memory.value;
  measured["flops"] = profile.gpu.flops_16bit.value;
  measured["cpu_attention_bytes_per_s"] = profile.host.numa_nodes.value.front().dram_bytes_per_s;
  measured["handover_ns"] = profile.gpu.handover_ns.value;
  for (const E2ePolicyResult& result : policies) {
    Json json{{"policy", result.policy}};
    add_spread(json, "cold_ttft", result.cold_ttft_ms);
    add_spread(json, "warm_ttft", result.warm_ttft_ms);
    add_spread(json, "tpot", result.tpot_ms);
    json["predicted_step_ms"] = result.predicted_step_ms;
    json["streamed_bytes_a_step"] = result.streamed_bytes_a_step;
    json["link_share_of_step"] = link_share(*this, result);
    json["staging_bytes"] = result.staging_bytes;
    json["reused_tokens"] = result.reused_tokens;
    json["compressed_pages"] = result.counters.compressed_pages;
    json["inflated_pages"] = result.inflated_pages;
    json["plan"] = result.reason;
    for (const std::string_view name : kBaselines)
      if (const E2ePolicyResult* baseline = find(name)) {
        json[fmt::format("tpot_speedup_over_{}", name)] =
            baseline->tpot_ms.median / result.tpot_ms.median;
        json[fmt::format("warm_ttft_speedup_over_{}", name)] =
            baseline->warm_ttft_ms.median / result.warm_ttft_ms.median;
      }
    all["policies"].push_back(std::move(json));
  }
  return all;
}

std::string E2eReport::table() const {
  std::vector<TextTable::Column> columns{{"policy", TextTable::Align::left},
                                         {"cold TTFT ms"},
                                         {"warm TTFT ms"},
                                         {"TPOT ms"},
                                         {"predicted"},
                                         {"MiB streamed"},
                                         {"link"}};
  for (const std::string_view name : kBaselines)
    if (find(name) != nullptr) columns.push_back({std::string(name)});
  TextTable table(columns);
  for (const E2ePolicyResult& result : policies) {
    std::vector<std::string> cells{result.policy,
                                   fmt::format("{:.1f}", result.cold_ttft_ms.median),
                                   fmt::format("{:.1f}", result.warm_ttft_ms.median),
                                   with_spread(result.tpot_ms),
                                   fmt::format("{:.1f}", result.predicted_step_ms),
                                   fmt::format("{:.1f}", mib(result.streamed_bytes_a_step)),
                                   fmt::format("{:.0f} %", 100 * link_share(*this, result))};
    for (const std::string_view name : kBaselines)
      if (const E2ePolicyResult* baseline = find(name))
        cells.push_back(fmt::format("{:.2f}x", baseline->tpot_ms.median / result.tpot_ms.median));
    table.add_row(cells);
  }
  const double kv = static_cast<double>(load.kv_bytes());
  return fmt::format(
      "{} ({} layers) on {}\n"
      "{} sequences of {} image and {} text tokens in chunks of {}, then {} decode steps; {} "
      "rounds\n"
      "device budget {:.1f} MiB, staging included: {:.0f} % of their 16-bit KV ({:.1f} MiB)\n"
      "measured before: link {:.2f} GB/s up, {:.2f} down; attention {:.2f} GB/s, on the CPU "
      "{:.2f}\n\n"
      "{}\n"
      "Medians (p10-p90). TTFT: of a prompt served alone; warm: its image was served before. "
      "TPOT:\n"
      "a decode step of the batch. predicted: by the planner, for the machine as measured. link:\n"
      "copies of a step at the link's best rate, as a share of the step. ...x: TPOT of that "
      "baseline\n"
      "over this policy's. Quality is not measured here: weights are random.\n",
      load.model.name, load.model.layers, machine, load.batch, load.image_tokens, load.text_tokens,
      load.chunk_tokens, load.decode_steps, rounds, mib(load.device_budget_bytes),
      100 * static_cast<double>(load.device_budget_bytes) / kv, mib(load.kv_bytes()),
      profile.link.h2d_bytes_per_s.value / 1e9, profile.link.d2h_bytes_per_s.value / 1e9,
      profile.gpu.memory_bytes_per_s.value * profile.gpu.efficiency.attention_memory.value / 1e9,
      profile.host.numa_nodes.value.front().dram_bytes_per_s / 1e9, table.str());
}

}  // namespace modalkv
