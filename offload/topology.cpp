#include "offload/topology.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <tuple>

#include "modalkv/error.hpp"
#include "offload/hwloc_handle.hpp"

namespace modalkv {
namespace {

constexpr std::uint64_t kNear = 10, kFar = 20;

HwlocTopology load(const TopologySource& source) {
  if (!source.synthetic.empty() && !source.xml_file.empty())
    throw Error("a synthetic topology and an XML file exclude each other: give one");
  hwloc_topology_t raw = nullptr;
  if (hwloc_topology_init(&raw) != 0) throw Error("hwloc cannot be initialized");
  HwlocTopology topology(raw);
  if (!source.synthetic.empty() && hwloc_topology_set_synthetic(raw, source.synthetic.c_str()) != 0)
    throw Error(fmt::format("hwloc does not understand '{}'; an example: 'node:2 core:8 pu:2'",
                            source.synthetic));
  if (!source.xml_file.empty() && hwloc_topology_set_xml(raw, source.xml_file.c_str()) != 0)
    throw Error(fmt::format("{}: not an hwloc XML file that can be read", source.xml_file));
  hwloc_topology_set_io_types_filter(raw, HWLOC_TYPE_FILTER_KEEP_IMPORTANT);
  // What a cgroup forbids is left out as it is.
  if (hwloc_topology_load(raw) != 0) throw Error("hwloc cannot load this topology");
  return topology;
}

// Processors that some thread of this process may run on; all of another machine's.
HwlocBitmap usable_cpus(hwloc_topology_t topology) {
  HwlocBitmap usable(hwloc_bitmap_dup(hwloc_topology_get_allowed_cpuset(topology)));
  const HwlocBitmap bound(hwloc_bitmap_alloc());
  if (hwloc_topology_is_thissystem(topology) != 0 &&
      hwloc_get_proc_cpubind(topology, getpid(), bound.get(), 0) == 0)
    hwloc_bitmap_and(usable.get(), usable.get(), bound.get());
  return usable;
}

std::vector<int> indices_in(hwloc_const_bitmap_t set) {
  std::vector<int> indices;
  for (int i = hwloc_bitmap_first(set); i >= 0; i = hwloc_bitmap_next(set, i)) indices.push_back(i);
  return indices;
}

std::vector<int> cores_in(hwloc_topology_t topology, hwloc_const_bitmap_t cpus) {
  std::vector<int> cores;
  const HwlocBitmap of_core(hwloc_bitmap_alloc());
  for (hwloc_obj_t core = nullptr;
       (core = hwloc_get_next_obj_by_type(topology, HWLOC_OBJ_CORE, core)) != nullptr;) {
    hwloc_bitmap_and(of_core.get(), core->cpuset, cpus);
    if (hwloc_bitmap_iszero(of_core.get()) == 0) cores.push_back(hwloc_bitmap_first(of_core.get()));
  }
  std::sort(cores.begin(), cores.end());
  // Some virtual machines and containers tell of processors only.
  return cores.empty() ? indices_in(cpus) : cores;
}

std::vector<hwloc_obj_t> node_objects(hwloc_topology_t topology) {
  std::vector<hwloc_obj_t> objects;
  for (hwloc_obj_t object = nullptr;
       (object = hwloc_get_next_obj_by_type(topology, HWLOC_OBJ_NUMANODE, object)) != nullptr;)
    objects.push_back(object);
  std::sort(objects.begin(), objects.end(),
            [](hwloc_obj_t a, hwloc_obj_t b) { return a->os_index < b->os_index; });
  return objects;
}

// hwloc lends a node without processors those of its neighbour, which has the lower index.
std::vector<TopologyNode> nodes_of(hwloc_topology_t topology,
                                   const std::vector<hwloc_obj_t>& objects) {
  const HwlocBitmap left = usable_cpus(topology), cpus(hwloc_bitmap_alloc());
  std::vector<TopologyNode> nodes;
  for (const hwloc_obj_t object : objects) {
    TopologyNode node{.index = static_cast<int>(object->os_index),
                      .memory_bytes = static_cast<Bytes>(object->attr->numanode.local_memory)};
    if (object->subtype != nullptr && std::string_view(object->subtype) == "GPUMemory") {
      node.role = TopologyNode::Role::gpu_memory;
    } else {
      hwloc_bitmap_and(cpus.get(), object->cpuset, left.get());
      hwloc_bitmap_andnot(left.get(), left.get(), object->cpuset);
      node.cpus = indices_in(cpus.get());
      if (!node.cpus.empty()) node.cores = cores_in(topology, cpus.get());
      if (node.cpus.empty() || node.memory_bytes == 0) node.role = TopologyNode::Role::memory_only;
    }
    nodes.push_back(std::move(node));
  }
  return nodes;
}

std::vector<std::vector<std::uint64_t>> distances_of(hwloc_topology_t topology,
                                                     const std::vector<hwloc_obj_t>& objects) {
  const std::size_t count = objects.size();
  std::vector<std::vector<std::uint64_t>> matrix(count);
  for (std::size_t i = 0; i < count; ++i) {
    matrix[i].assign(count, kFar);
    matrix[i][i] = kNear;
  }
  unsigned matrices = 1;
  hwloc_distances_s* found = nullptr;
  if (hwloc_distances_get_by_type(topology, HWLOC_OBJ_NUMANODE, &matrices, &found,
                                  HWLOC_DISTANCES_KIND_MEANS_LATENCY, 0) != 0 ||
      matrices == 0)
    return matrix;
  for (std::size_t i = 0; i < count; ++i) {
    for (std::size_t j = 0; j < count; ++j) {
      hwloc_uint64_t there = 0, back = 0;
      if (hwloc_distances_obj_pair_values(found, objects[i], objects[j], &there, &back) == 0)
        matrix[i][j] = there;
    }
  }
  hwloc_distances_release(topology, found);
  return matrix;
}

std::vector<TopologyGpu> gpus_of(hwloc_topology_t topology) {
  constexpr int display_class = 0x03;
  std::vector<TopologyGpu> gpus;
  for (hwloc_obj_t device = nullptr;
       (device = hwloc_get_next_pcidev(topology, device)) != nullptr;) {
    const auto& pci = device->attr->pcidev;
    if (pci.class_id >> 8 != display_class) continue;
    gpus.push_back(
        {fmt::format("{:04x}:{:02x}:{:02x}.{:x}", pci.domain, pci.bus, pci.dev, pci.func),
         indices_in(hwloc_get_non_io_ancestor_obj(topology, device)->nodeset)});
  }
  return gpus;
}

bool contains(const std::vector<int>& indices, int index) {
  return std::find(indices.begin(), indices.end(), index) != indices.end();
}

}  // namespace

Topology read_topology(const TopologySource& source) {
  const HwlocTopology topology = load(source);
  const std::vector<hwloc_obj_t> objects = node_objects(topology.get());
  return {nodes_of(topology.get(), objects), distances_of(topology.get(), objects),
          gpus_of(topology.get())};
}

std::vector<const TopologyNode*> homes_by_distance(const Topology& topology,
                                                   std::string_view pci_bus_id) {
  const auto gpu = std::find_if(topology.gpus.begin(), topology.gpus.end(),
                                [&](const TopologyGpu& g) { return g.pci_bus_id == pci_bus_id; });
  struct Home {
    std::uint64_t distance;
    const TopologyNode* node;
  };
  std::vector<Home> homes;
  for (std::size_t j = 0; j < topology.nodes.size(); ++j) {
    if (topology.nodes[j].role != TopologyNode::Role::home) continue;
    std::uint64_t distance = ~std::uint64_t{0};
    for (std::size_t i = 0; gpu != topology.gpus.end() && i < topology.nodes.size(); ++i)
      if (contains(gpu->nodes, topology.nodes[i].index))
        distance = std::min(distance, topology.distances[i][j]);
    homes.push_back({distance, &topology.nodes[j]});
  }
  std::stable_sort(homes.begin(), homes.end(), [](const Home& a, const Home& b) {
    return std::tuple(a.distance, -a.node->memory_bytes) <
           std::tuple(b.distance, -b.node->memory_bytes);
  });
  std::vector<const TopologyNode*> nodes;
  for (const Home& home : homes) nodes.push_back(home.node);
  return nodes;
}

}  // namespace modalkv
