#include "tools/commands/inspect.hpp"

#include <fmt/format.h>

#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "modalkv/error.hpp"
#include "tools/commands/inspect_topology.hpp"
#include "tools/profile/profile.hpp"
#include "tools/report/text_table.hpp"

namespace modalkv {
namespace {

using Json = nlohmann::ordered_json;
using Align = TextTable::Align;

struct NamedFormat {
  std::string_view name;
  KvFormat format;
};

std::vector<NamedFormat> named_formats() {
  return {{"fp16", both(fp16())},
          {"bf16", both(bf16())},
          {"fp8-e4m3 (per tensor)", both(fp8_e4m3())},
          {"int8 token-head", both(int8_token_head())},
          {"int8 K + int4 V, token-head", {int8_token_head(), int4_token_head()}},
          {"int4 token-head", both(int4_token_head())},
          {"int4 g128", both(int4_grouped(128))},
          {"int4 g64", both(int4_grouped(64))},
          {"int4 g32", both(int4_grouped(32))},
          {"nvfp4", both(nvfp4())},
          {"mxfp4", both(mxfp4())},
          {"int2 g128", both(int2_grouped(128))},
          {"int2 g64", both(int2_grouped(64))},
          {"int2 g32", both(int2_grouped(32))}};
}

void print_formats(const std::string& model_name, bool json) {
  std::optional<ModelGeometry> model;
  if (!model_name.empty()) model = load_model(model_name);
  const int head_dim = model ? model->head_dim : 128;
  const auto full = static_cast<double>(token_head_bytes(both(fp16()), head_dim));
  Json rows = Json::array();
  std::vector<TextTable::Column> columns{{"format", Align::left},
                                         {"bytes"},
                                         {"bits/element"},
                                         {"x vs FP16"},
                                         {"10 % FP16 + 90 % this"}};
  if (model) columns.push_back({model->name + " B/token"});
  TextTable table(columns);
  for (const auto& [name, format] : named_formats()) {
    const auto bytes = token_head_bytes(format, head_dim);
    const double ratio = full / static_cast<double>(bytes);
    const double mixed = full / (0.1 * full + 0.9 * static_cast<double>(bytes));
    Json row{{"format", name},
             {"bytes_per_token_head", bytes},
             {"bits_per_element", bits_per_element(format, head_dim)},
             {"times_smaller_than_fp16", ratio},
             {"times_smaller_with_10_percent_fp16", mixed}};
    std::vector<std::string> cells{std::string(name), fmt::format("{}", bytes),
                                   fmt::format("{:.2f}", bits_per_element(format, head_dim)),
                                   fmt::format("{:.2f}", ratio), fmt::format("{:.2f}", mixed)};
    if (model) {
      row["bytes_per_token"] = kv_bytes_per_token(*model, format);
      cells.push_back(fmt::format("{}", kv_bytes_per_token(*model, format)));
    }
    rows.push_back(row);
    table.add_row(cells);
  }
  if (json) {
    fmt::print("{}\n",
               Json{{"schema_version", 1}, {"head_dim", head_dim}, {"formats", rows}}.dump(2));
    return;
  }
  fmt::print("K and V of one token and one KV head, head_dim {}, metadata included\n\n{}", head_dim,
             table.str());
}

std::string image_rule_text(const ImageTokenRule& rule) {
  switch (rule.kind) {
    case ImageTokenRule::Kind::none:
      return "text only";
    case ImageTokenRule::Kind::fixed:
      return fmt::format("{} an image", rule.tokens_per_unit);
    case ImageTokenRule::Kind::pixels:
      return fmt::format("1 per {0} x {0} px, at most {1}", rule.unit_side_px, rule.max_tokens);
    case ImageTokenRule::Kind::tiles:
      return fmt::format("{0} per {1} x {1} px tile, at most {2}", rule.tokens_per_unit,
                         rule.unit_side_px, rule.max_tokens);
  }
  return "";
}

void print_models(bool json) {
  Json rows = Json::array();
  TextTable table({{"model", Align::left},
                   {"layers"},
                   {"heads q/kv"},
                   {"hidden"},
                   {"weights GiB"},
                   {"KV B/token"},
                   {"context"},
                   {"image tokens", Align::left}});
  for (const std::string& name : list_models()) {
    const ModelGeometry model = load_model(name);
    const Bytes kv = kv_bytes_per_token(model, both(fp16()));
    const Bytes weights = weight_bytes(model);
    rows.push_back({{"name", model.name},
                    {"layers", model.layers},
                    {"q_heads", model.q_heads},
                    {"kv_heads", model.kv_heads},
                    {"head_dim", model.head_dim},
                    {"weight_bytes", weights},
                    {"kv_bytes_per_token_16bit", kv},
                    {"context_tokens", model.context_tokens}});
    table.add_row(
        {model.name, fmt::format("{}", model.layers),
         fmt::format("{}/{}", model.q_heads, model.kv_heads), fmt::format("{}", model.hidden),
         fmt::format("{:.1f}", static_cast<double>(weights) / kGiB), fmt::format("{}", kv),
         fmt::format("{}", model.context_tokens), image_rule_text(model.image_rule)});
  }
  if (json) {
    fmt::print("{}\n", Json{{"schema_version", 1}, {"models", rows}}.dump(2));
  } else {
    fmt::print("16-bit weights (vision encoder included) and 16-bit KV\n\n{}", table.str());
  }
}

void print_machines(bool json) {
  Json rows = Json::array();
  TextTable table({{"machine", Align::left},
                   {"GPU GiB"},
                   {"GB/s"},
                   {"TFLOP/s"},
                   {"h2d GB/s"},
                   {"d2h GB/s"},
                   {"host GiB"},
                   {"DRAM GB/s"},
                   {"kernels", Align::left}});
  for (const std::string& name : list_hardware()) {
    const HardwareProfile machine = load_hardware(name);
    double host = 0, dram = 0;
    for (const NumaNode& node : machine.host.numa_nodes.value) {
      host += static_cast<double>(node.memory_bytes);
      dram += node.dram_bytes_per_s;
    }
    rows.push_back({{"name", machine.name},
                    {"gpu_memory_bytes", machine.gpu.memory_bytes.value},
                    {"gpu_memory_bytes_per_s", machine.gpu.memory_bytes_per_s.value},
                    {"flops_16bit", machine.gpu.flops_16bit.value},
                    {"h2d_bytes_per_s", machine.link.h2d_bytes_per_s.value},
                    {"d2h_bytes_per_s", machine.link.d2h_bytes_per_s.value}});
    table.add_row(
        {machine.name,
         fmt::format("{:.1f}", static_cast<double>(machine.gpu.memory_bytes.value) / kGiB),
         fmt::format("{:.0f}", machine.gpu.memory_bytes_per_s / 1e9),
         fmt::format("{:.0f}", machine.gpu.flops_16bit / 1e12),
         fmt::format("{:.1f}", machine.link.h2d_bytes_per_s / 1e9),
         fmt::format("{:.1f}", machine.link.d2h_bytes_per_s / 1e9),
         fmt::format("{:.0f}", host / kGiB), fmt::format("{:.0f}", dram / 1e9),
         std::string(modalkv::name(machine.gpu.efficiency.gemm_memory.evidence))});
  }
  if (json) {
    fmt::print("{}\n", Json{{"schema_version", 1}, {"hardware", rows}}.dump(2));
  } else {
    fmt::print(
        "'kernels' says how well the card's efficiencies are known; every field with its source: "
        "modalkv inspect hardware NAME\n\n{}",
        table.str());
  }
}

/// Every number of a machine with its evidence.
class MachineTable {
 public:
  template <typename T>
  void add(std::string_view field, const Sourced<T>& number, std::string value) {
    table_.add_row(
        {std::string(field), std::move(value), std::string(name(number.evidence)), number.source});
  }
  void add(std::string_view field, const Sourced<double>& number, double unit,
           std::string_view suffix) {
    add(field, number, fmt::format("{:.4g} {}", number.value / unit, suffix));
  }
  void add(std::string_view field, const Sourced<Bytes>& number) {
    add(field, number, fmt::format("{:.2f} GiB", static_cast<double>(number.value) / kGiB));
  }
  std::string str() const { return table_.str(140); }

 private:
  TextTable table_{
      {{"field", Align::left}, {"value"}, {"evidence", Align::left}, {"source", Align::left}}};
};

void print_machine(const std::string& machine_name, bool json) {
  const HardwareProfile machine = load_hardware(machine_name);
  if (json) {
    // The profile file is JSON with every field's evidence already.
    const bool path =
        machine_name.find('/') != std::string::npos || machine_name.ends_with(".json");
    fmt::print("{}",
               read_text_file(path ? std::filesystem::path(machine_name)
                                   : profile_folder() / "hardware" / (machine_name + ".json")));
    return;
  }
  MachineTable table;
  const GpuProfile& gpu = machine.gpu;
  table.add("GPU memory", gpu.memory_bytes);
  table.add("GPU memory rate", gpu.memory_bytes_per_s, 1e9, "GB/s");
  table.add("16-bit tensor rate", gpu.flops_16bit, 1e12, "TFLOP/s");
  table.add("GEMM: share of memory rate", gpu.efficiency.gemm_memory, 1, "");
  table.add("GEMM: share of tensor rate", gpu.efficiency.gemm_flops, 1, "");
  table.add("attention: share of memory rate", gpu.efficiency.attention_memory, 1, "");
  table.add("prefill attention: share of tensor rate", gpu.efficiency.prefill_flops, 1, "");
  table.add("attention launch", gpu.attention_launch_ns, 1e3, "us");
  table.add("small operations a layer", gpu.small_ops_ns_per_layer, 1e3, "us");
  table.add("small operations a token", gpu.small_ops_ns_per_token, 1e3, "us");
  table.add("host time a step", gpu.step_host_ns, 1e6, "ms");
  table.add("GPU-CPU hand-over", gpu.handover_ns, 1e3, "us");
  table.add("workspace and context", gpu.reserved_bytes);
  const LinkProfile& link = machine.link;
  table.add("host to device", link.h2d_bytes_per_s, 1e9, "GB/s");
  table.add("device to host", link.d2h_bytes_per_s, 1e9, "GB/s");
  table.add("share kept under opposing traffic", link.duplex_share, 1, "");
  table.add("a copy descriptor", link.descriptor_ns, 1e3, "us");
  std::string pieces;
  for (const LinkPoint& point : link.piece_table.value)
    pieces += fmt::format("{}{}K:{:.1f}", pieces.empty() ? "" : " ", point.descriptor_bytes / kKiB,
                          point.bytes_per_s / 1e9);
  table.add("GB/s by piece size", link.piece_table, pieces);
  std::string nodes;
  for (const NumaNode& node : machine.host.numa_nodes.value)
    nodes += fmt::format("{}{:.0f} GiB {:.0f} GB/s {} cores", nodes.empty() ? "" : "; ",
                         static_cast<double>(node.memory_bytes) / kGiB, node.dram_bytes_per_s / 1e9,
                         node.cores);
  table.add("NUMA nodes", machine.host.numa_nodes, nodes);
  table.add("share that may be pinned", machine.host.pinnable_share, 1, "");
  table.add("CPU attention: share of DRAM rate", machine.host.attention_memory, 1, "");
  table.add("disk", machine.disk.capacity_bytes);
  table.add("disk read", machine.disk.read_bytes_per_s, 1e9, "GB/s");
  table.add("disk write", machine.disk.write_bytes_per_s, 1e9, "GB/s");
  table.add("disk latency", machine.disk.latency_ns, 1e3, "us");
  fmt::print("{}\n\n{}", machine.name, table.str());
}

struct InspectArguments {
  std::string name;
  TopologySource topology;
  bool json = false;
};

}  // namespace

void add_inspect_command(CLI::App& app) {
  CLI::App* inspect = app.add_subcommand(
      "inspect", "Print what modalkv knows: formats, models, machines, topology");
  inspect->require_subcommand(1);
  auto arguments = std::make_shared<InspectArguments>();
  const auto add = [&](const char* name, const char* text) {
    CLI::App* command = inspect->add_subcommand(name, text);
    command->add_flag("--json", arguments->json, "print JSON");
    return command;
  };
  CLI::App* formats = add("formats", "Bytes of every KV format");
  formats->add_option("--model", arguments->name, "also bytes a token of this model");
  formats->callback([arguments] { print_formats(arguments->name, arguments->json); });
  add("models", "Models known by name")->callback([arguments] { print_models(arguments->json); });
  CLI::App* hardware = add("hardware", "Machines known by name, or every field of one");
  hardware->add_option("name", arguments->name, "machine name or JSON file");
  hardware->callback([arguments] {
    if (arguments->name.empty()) {
      print_machines(arguments->json);
    } else {
      print_machine(arguments->name, arguments->json);
    }
  });
  CLI::App* topology =
      add("topology", "This machine's NUMA nodes and GPUs, and what modalkv will do with them");
  topology->add_option("--synthetic", arguments->topology.synthetic,
                       "an hwloc synthetic description instead, such as 'node:2 core:8 pu:2'");
  topology->add_option("--xml", arguments->topology.xml_file, "an hwloc XML file instead");
  topology->callback(
      [arguments] { fmt::print("{}", describe_topology(arguments->topology, arguments->json)); });
}

}  // namespace modalkv
