#include "tools/commands/inspect_topology.hpp"

#include <fmt/format.h>
#include <hwloc.h>

#include <algorithm>
#include <memory>
#include <nlohmann/json.hpp>
#include <vector>

#include "modalkv/error.hpp"
#include "modalkv/units.hpp"
#include "offload/gpu_probe.hpp"
#include "tools/report/text_table.hpp"

namespace modalkv {
namespace {

struct Node {
  unsigned index = 0;
  Bytes memory_bytes = 0;
  int cores = 0;
  std::vector<std::string> devices{};  ///< PCI display and 3D controllers that hang on it
  bool is_gpu_memory = false;          ///< a GPU's own memory shown as a node (GH200)
};

using Topology = std::unique_ptr<hwloc_topology, decltype(&hwloc_topology_destroy)>;

Topology load(const TopologySource& source) {
  hwloc_topology_t raw = nullptr;
  if (hwloc_topology_init(&raw) != 0) throw Error("hwloc cannot be initialized");
  Topology topology(raw, hwloc_topology_destroy);
  if (!source.synthetic.empty() && hwloc_topology_set_synthetic(raw, source.synthetic.c_str()) != 0)
    throw Error(
        fmt::format("--synthetic: hwloc does not understand '{}'; an example: 'node:2 core:8 pu:2'",
                    source.synthetic));
  if (!source.xml_file.empty() && hwloc_topology_set_xml(raw, source.xml_file.c_str()) != 0)
    throw Error(fmt::format("{}: not an hwloc XML file that can be read", source.xml_file));
  hwloc_topology_set_io_types_filter(raw, HWLOC_TYPE_FILTER_KEEP_IMPORTANT);
  if (hwloc_topology_load(raw) != 0) throw Error("hwloc cannot load this topology");
  return topology;
}

bool is_display_class(unsigned short class_id) {
  return class_id >> 8 == 0x03;
}

std::vector<Node> nodes_of(hwloc_topology_t topology) {
  std::vector<Node> nodes;
  for (hwloc_obj_t object = nullptr;
       (object = hwloc_get_next_obj_by_type(topology, HWLOC_OBJ_NUMANODE, object)) != nullptr;) {
    Node node{
        .index = object->os_index,
        .memory_bytes = static_cast<Bytes>(object->attr->numanode.local_memory),
        .cores = hwloc_get_nbobjs_inside_cpuset_by_type(topology, object->cpuset, HWLOC_OBJ_CORE)};
    const char* subtype = object->subtype;
    node.is_gpu_memory = subtype != nullptr && std::string_view(subtype) == "GPUMemory";
    nodes.push_back(node);
  }
  for (hwloc_obj_t device = nullptr;
       (device = hwloc_get_next_pcidev(topology, device)) != nullptr;) {
    const auto& pci = device->attr->pcidev;
    if (!is_display_class(pci.class_id)) continue;
    const hwloc_obj_t host = hwloc_get_non_io_ancestor_obj(topology, device);
    for (Node& node : nodes)
      if (hwloc_bitmap_isset(host->nodeset, node.index))
        node.devices.push_back(
            fmt::format("{:04x}:{:02x}:{:02x}.{:x}", pci.domain, pci.bus, pci.dev, pci.func));
  }
  return nodes;
}

// Nodes with a GPU first, then by size; a GPU's own memory never.
std::vector<Node> pool_order(std::vector<Node> nodes) {
  std::erase_if(nodes,
                [](const Node& node) { return node.is_gpu_memory || node.memory_bytes == 0; });
  std::stable_sort(nodes.begin(), nodes.end(), [](const Node& a, const Node& b) {
    if (a.devices.empty() != b.devices.empty()) return !a.devices.empty();
    return a.memory_bytes > b.memory_bytes;
  });
  return nodes;
}

std::vector<std::vector<std::uint64_t>> distances(hwloc_topology_t topology, std::size_t nodes) {
  unsigned count = 1;
  hwloc_distances_s* found = nullptr;
  if (hwloc_distances_get_by_type(topology, HWLOC_OBJ_NUMANODE, &count, &found,
                                  HWLOC_DISTANCES_KIND_MEANS_LATENCY, 0) != 0 ||
      count == 0)
    return {};
  std::vector<std::vector<std::uint64_t>> matrix(nodes, std::vector<std::uint64_t>(nodes));
  for (std::size_t i = 0; i < nodes && found->nbobjs == nodes; ++i)
    for (std::size_t j = 0; j < nodes; ++j) matrix[i][j] = found->values[i * nodes + j];
  hwloc_distances_release(topology, found);
  return matrix;
}

std::string as_json(const std::vector<Node>& nodes, const std::vector<Node>& order,
                    const std::vector<std::vector<std::uint64_t>>& matrix, const GpuProbe& gpus) {
  nlohmann::ordered_json json{{"schema_version", 1}};
  json["nodes"] = nlohmann::ordered_json::array();
  for (const Node& node : nodes)
    json["nodes"].push_back({{"node", node.index},
                             {"memory_bytes", node.memory_bytes},
                             {"cores", node.cores},
                             {"display_devices", node.devices},
                             {"gpu_memory", node.is_gpu_memory}});
  json["distances"] = matrix;
  json["pool_order"] = nlohmann::ordered_json::array();
  for (const Node& node : order) json["pool_order"].push_back(node.index);
  json["gpus"] = nlohmann::ordered_json::array();
  for (const GpuInfo& gpu : gpus.gpus)
    json["gpus"].push_back(
        {{"name", gpu.name}, {"memory_bytes", gpu.memory_bytes}, {"pci_bus_id", gpu.pci_bus_id}});
  json["no_gpu_reason"] = gpus.reason;
  return json.dump(2) + "\n";
}

}  // namespace

std::string describe_topology(const TopologySource& source, bool json) {
  if (!source.synthetic.empty() && !source.xml_file.empty())
    throw Error("--synthetic and --xml exclude each other: give one");
  const Topology topology = load(source);
  const std::vector<Node> nodes = nodes_of(topology.get());
  const std::vector<Node> order = pool_order(nodes);
  const auto matrix = distances(topology.get(), nodes.size());
  const bool here = source.synthetic.empty() && source.xml_file.empty();
  const GpuProbe gpus = here ? probe_gpus() : GpuProbe{.gpus = {}, .reason = "not this machine"};
  if (json) return as_json(nodes, order, matrix, gpus);

  TextTable table({{"NUMA node", TextTable::Align::left},
                   {"memory GiB"},
                   {"cores"},
                   {"display devices", TextTable::Align::left}});
  for (const Node& node : nodes)
    table.add_row({fmt::format("{}{}", node.index, node.is_gpu_memory ? " (GPU memory)" : ""),
                   fmt::format("{:.1f}", static_cast<double>(node.memory_bytes) / kGiB),
                   fmt::format("{}", node.cores),
                   fmt::format("{}", fmt::join(node.devices, ", "))});
  std::string out = table.str();
  if (!matrix.empty()) {
    out += "\nDistances between nodes:\n";
    for (const auto& row : matrix) out += fmt::format("  {}\n", fmt::join(row, " "));
  }
  out += "\nGPUs: ";
  if (gpus.gpus.empty()) out += fmt::format("none ({})\n", gpus.reason);
  for (const GpuInfo& gpu : gpus.gpus)
    out += fmt::format("{} {:.1f} GiB at {}\n", gpu.name,
                       static_cast<double>(gpu.memory_bytes) / kGiB, gpu.pci_bus_id);
  out += "\nmodalkv will: ";
  if (order.empty()) return out + "refuse to keep KV on the host: no node has memory\n";
  out += fmt::format("pin its host pool on node {}", order.front().index);
  for (std::size_t i = 1; i < order.size(); ++i)
    out += fmt::format(", then node {}", order[i].index);
  out += "; attend to what a node holds with that node's cores\n";
  return out;
}

}  // namespace modalkv
