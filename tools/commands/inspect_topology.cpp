#include "tools/commands/inspect_topology.hpp"

#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <vector>

#include "offload/gpu_probe.hpp"
#include "offload/memory_room.hpp"
#include "tools/report/text_table.hpp"

namespace modalkv {
namespace {

using Json = nlohmann::ordered_json;
using Homes = std::vector<const TopologyNode*>;

double gib(Bytes bytes) {
  return static_cast<double>(bytes) / kGiB;
}

// "0-3,8"
std::string ranges(const std::vector<int>& indices) {
  std::string text;
  for (std::size_t i = 0; i < indices.size();) {
    std::size_t last = i;
    while (last + 1 < indices.size() && indices[last + 1] == indices[last] + 1) ++last;
    text += fmt::format("{}{}", text.empty() ? "" : ",", indices[i]);
    if (last > i) text += fmt::format("-{}", indices[last]);
    i = last + 1;
  }
  return text;
}

std::vector<std::string> gpus_next_to(const Topology& topology, int node) {
  std::vector<std::string> ids;
  for (const TopologyGpu& gpu : topology.gpus)
    for (const int index : gpu.nodes)
      if (index == node) ids.push_back(gpu.pci_bus_id);
  return ids;
}

// The GPUs that pools are ordered for: CUDA's, else all that look like one, else "" for none.
std::vector<std::string> served_gpus(const Topology& topology, const GpuProbe& probe) {
  std::vector<std::string> ids;
  for (const GpuInfo& gpu : probe.gpus) ids.push_back(gpu.pci_bus_id);
  if (ids.empty())
    for (const TopologyGpu& gpu : topology.gpus) ids.push_back(gpu.pci_bus_id);
  if (ids.empty()) ids.emplace_back();
  return ids;
}

std::string as_json(const Topology& topology, const GpuProbe& probe) {
  Json json{{"schema_version", 2}};
  json["nodes"] = Json::array();
  for (const TopologyNode& node : topology.nodes)
    json["nodes"].push_back({{"node", node.index},
                             {"role", name(node.role)},
                             {"memory_bytes", node.memory_bytes},
                             {"cpus", node.cpus},
                             {"cores", node.cores},
                             {"display_devices", gpus_next_to(topology, node.index)}});
  json["distances"] = topology.distances;
  json["gpus"] = Json::array();
  for (const GpuInfo& gpu : probe.gpus)
    json["gpus"].push_back(
        {{"name", gpu.name}, {"memory_bytes", gpu.memory_bytes}, {"pci_bus_id", gpu.pci_bus_id}});
  json["no_gpu_reason"] = probe.reason;
  json["pools"] = Json::array();
  for (const std::string& gpu : served_gpus(topology, probe)) {
    Json pools = Json::array();
    for (const TopologyNode* node : homes_by_distance(topology, gpu))
      pools.push_back({{"node", node->index}, {"attention_threads", node->cores.size()}});
    json["pools"].push_back({{"gpu", gpu}, {"nodes", pools}});
  }
  return json.dump(2) + "\n";
}

// Of this machine, which may have promised its memory to others or be under a limit.
std::string room_now(const TopologyNode& node, bool here) {
  if (!here) return {};
  const MemoryRoom room = memory_room(node.index);
  return fmt::format(" ({:.1f} GiB to be had now: {})", gib(room.bytes), room.limited_by);
}

std::string intentions(const Topology& topology, const std::string& gpu, bool here) {
  const Homes homes = homes_by_distance(topology, gpu);
  std::string text = gpu.empty() ? "\nmodalkv will" : fmt::format("\nFor {} modalkv will", gpu);
  if (homes.empty())
    return text + " refuse to keep KV on the host: no node has memory and processors\n";
  text += " fill a pool a node, in this order, and attend to it there:\n";
  for (const TopologyNode* node : homes)
    text += fmt::format(
        "  node {}: pinned pool of up to {:.1f} GiB{}; {} attention threads on {}\n", node->index,
        gib(node->memory_bytes), room_now(*node, here), node->cores.size(), ranges(node->cores));
  return text;
}

std::string as_text(const Topology& topology, const GpuProbe& probe, bool here) {
  TextTable table({{"NUMA node", TextTable::Align::left},
                   {"memory GiB"},
                   {"cores"},
                   {"processors", TextTable::Align::left},
                   {"used as", TextTable::Align::left},
                   {"display devices", TextTable::Align::left}});
  for (const TopologyNode& node : topology.nodes) {
    const bool home = node.role == TopologyNode::Role::home;
    table.add_row({fmt::format("{}", node.index), fmt::format("{:.1f}", gib(node.memory_bytes)),
                   fmt::format("{}", node.cores.size()), ranges(node.cpus),
                   home ? "pool" : fmt::format("nothing: {}", name(node.role)),
                   fmt::format("{}", fmt::join(gpus_next_to(topology, node.index), ", "))});
  }
  std::string out = table.str();
  if (topology.nodes.size() > 1) {
    out += "\nDistances between nodes:\n";
    for (const auto& row : topology.distances) out += fmt::format("  {}\n", fmt::join(row, " "));
  }
  out += "\nGPUs: ";
  if (probe.gpus.empty()) out += fmt::format("none ({})\n", probe.reason);
  for (const GpuInfo& gpu : probe.gpus)
    out += fmt::format("{} {:.1f} GiB at {}\n", gpu.name, gib(gpu.memory_bytes), gpu.pci_bus_id);
  for (const std::string& gpu : served_gpus(topology, probe))
    out += intentions(topology, gpu, here);
  return out;
}

}  // namespace

std::string describe_topology(const TopologySource& source, bool json) {
  const Topology topology = read_topology(source);
  const bool here = source.synthetic.empty() && source.xml_file.empty();
  const GpuProbe probe = here ? probe_gpus() : GpuProbe{.gpus = {}, .reason = "not this machine"};
  return json ? as_json(topology, probe) : as_text(topology, probe, here);
}

}  // namespace modalkv
