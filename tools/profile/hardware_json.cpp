#include <fmt/format.h>

#include "modalkv/error.hpp"
#include "tools/profile/json_object.hpp"
#include "tools/profile/profile.hpp"

namespace modalkv {
namespace {

constexpr double kHighestRate = 1e18;
constexpr double kLargestMemory = 1e16;
constexpr double kLongestLatency = 1e12;

template <typename T>
Sourced<T> sourced(JsonObject& object, T value) {
  const std::string kind = object.text("kind");
  for (const Evidence evidence :
       {Evidence::datasheet, Evidence::measured, Evidence::fitted, Evidence::guess})
    if (kind == name(evidence)) {
      Sourced<T> result{std::move(value), evidence, object.text("source")};
      object.finish();
      return result;
    }
  object.fail("kind", "datasheet, measured, fitted or guess");
}

Sourced<double> number(JsonObject& parent, std::string_view key, double low, double high) {
  JsonObject object = parent.object(key);
  return sourced(object, object.number("value", low, high));
}

Sourced<Bytes> bytes(JsonObject& parent, std::string_view key, double low = 1) {
  JsonObject object = parent.object(key);
  return sourced(object, static_cast<Bytes>(object.number("value", low, kLargestMemory)));
}

Sourced<double> rate(JsonObject& parent, std::string_view key) {
  return number(parent, key, 1, kHighestRate);
}
Sourced<double> share(JsonObject& parent, std::string_view key) {
  return number(parent, key, 0.001, 1);
}
Sourced<double> latency(JsonObject& parent, std::string_view key) {
  return number(parent, key, 0, kLongestLatency);
}

GpuProfile gpu_profile(JsonObject object) {
  GpuProfile gpu;
  gpu.memory_bytes = bytes(object, "memory_bytes");
  gpu.memory_bytes_per_s = rate(object, "memory_bytes_per_s");
  gpu.flops_16bit = rate(object, "flops_16bit");
  gpu.attention_launch_ns = latency(object, "attention_launch_ns");
  gpu.small_ops_ns_per_layer = latency(object, "small_ops_ns_per_layer");
  gpu.small_ops_ns_per_token = latency(object, "small_ops_ns_per_token");
  gpu.step_host_ns = latency(object, "step_host_ns");
  gpu.handover_ns = latency(object, "handover_ns");
  gpu.reserved_bytes = bytes(object, "reserved_bytes", 0);
  if (gpu.reserved_bytes > gpu.memory_bytes)
    object.fail("reserved_bytes", fmt::format("at most memory_bytes, {}", gpu.memory_bytes.value));
  JsonObject efficiency = object.object("efficiency");
  gpu.efficiency.gemm_memory = share(efficiency, "gemm_memory");
  gpu.efficiency.gemm_flops = share(efficiency, "gemm_flops");
  gpu.efficiency.attention_memory = share(efficiency, "attention_memory");
  gpu.efficiency.prefill_flops = share(efficiency, "prefill_flops");
  efficiency.finish();
  object.finish();
  return gpu;
}

Sourced<std::vector<LinkPoint>> piece_table(JsonObject object) {
  std::vector<LinkPoint> table;
  for (JsonObject& row : object.objects("value")) {
    const LinkPoint point{row.integer("descriptor_bytes", 1, 1'000'000'000),
                          row.number("bytes_per_s", 1, kHighestRate)};
    if (!table.empty() && point.descriptor_bytes <= table.back().descriptor_bytes)
      row.fail("descriptor_bytes", "more than in the row before");
    row.finish();
    table.push_back(point);
  }
  return sourced(object, std::move(table));
}

LinkProfile link_profile(JsonObject object) {
  LinkProfile link;
  link.h2d_bytes_per_s = rate(object, "h2d_bytes_per_s");
  link.d2h_bytes_per_s = rate(object, "d2h_bytes_per_s");
  link.piece_table = piece_table(object.object("piece_table"));
  link.descriptor_ns = latency(object, "descriptor_ns");
  link.duplex_share = share(object, "duplex_share");
  object.finish();
  return link;
}

Sourced<std::vector<NumaNode>> numa_nodes(JsonObject object) {
  std::vector<NumaNode> nodes;
  for (JsonObject& row : object.objects("value")) {
    nodes.push_back(
        {.memory_bytes = static_cast<Bytes>(row.number("memory_bytes", 1, kLargestMemory)),
         .dram_bytes_per_s = row.number("dram_bytes_per_s", 1, kHighestRate),
         .cores = static_cast<int>(row.integer("cores", 1, 100'000))});
    row.finish();
  }
  if (nodes.empty()) object.fail("value", "at least one node");
  return sourced(object, std::move(nodes));
}

HostProfile host_profile(JsonObject object) {
  HostProfile host;
  host.numa_nodes = numa_nodes(object.object("numa_nodes"));
  host.pinnable_share = share(object, "pinnable_share");
  host.attention_memory = share(object, "attention_memory");
  object.finish();
  return host;
}

DiskProfile disk_profile(JsonObject object) {
  DiskProfile disk;
  disk.capacity_bytes = bytes(object, "capacity_bytes", 0);
  disk.read_bytes_per_s = rate(object, "read_bytes_per_s");
  disk.write_bytes_per_s = rate(object, "write_bytes_per_s");
  disk.latency_ns = latency(object, "latency_ns");
  object.finish();
  return disk;
}

}  // namespace

HardwareProfile parse_hardware(std::string_view text, std::string_view file) {
  const nlohmann::json document = parse_json(text, file);
  JsonObject object(document, std::string(file));
  object.ignore("note");
  HardwareProfile hardware;
  hardware.name = object.text("name");
  hardware.gpu = gpu_profile(object.object("gpu"));
  hardware.link = link_profile(object.object("link"));
  hardware.host = host_profile(object.object("host"));
  hardware.disk = disk_profile(object.object("disk"));
  object.finish();
  return hardware;
}

}  // namespace modalkv
