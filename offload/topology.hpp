// What modalkv needs to know of a machine, by hwloc: memory nodes, their processors, and which node
// each GPU hangs on.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "modalkv/units.hpp"

namespace modalkv {

/// At most one is set; neither: this machine.
struct TopologySource {
  std::string synthetic{};  ///< "node:2 core:8 pu:2"
  std::string xml_file{};   ///< as lstopo writes it
};

struct TopologyNode {
  enum class Role : std::uint8_t {
    home,         ///< of a pool, and of the threads that attend to it
    gpu_memory,   ///< a GPU's own memory shown as a node (GH200)
    memory_only,  ///< no processor of its own that this process may use, or no memory
  };
  int index = 0;  ///< of the operating system
  Role role = Role::home;
  Bytes memory_bytes = 0;
  /// Logical processors that this process may use (cgroup, cpuset, affinity), as the operating
  /// system numbers them, ascending. Each belongs to one node.
  std::vector<int> cpus{};
  std::vector<int> cores{};  ///< the first of `cpus` of every core
};

constexpr std::string_view name(TopologyNode::Role role) {
  constexpr std::string_view names[] = {"home", "GPU memory", "memory only"};
  return names[static_cast<std::uint8_t>(role)];
}

/// A PCI display or 3D controller.
struct TopologyGpu {
  std::string pci_bus_id;    ///< "0000:65:00.0", as GpuInfo has it
  std::vector<int> nodes{};  ///< indices of the nodes next to it; all of them where nobody knows
};

struct Topology {
  std::vector<TopologyNode> nodes;  ///< ascending indices
  /// Relative latency from nodes[i] to nodes[j]; where the machine says nothing 10 within a node
  /// and 20 across.
  std::vector<std::vector<std::uint64_t>> distances;
  std::vector<TopologyGpu> gpus;
};

/// Throws Error for a description or file that hwloc does not take.
Topology read_topology(const TopologySource& source = {});

/// The homes of pools, nearest to a GPU first (then larger first). A GPU that the topology does not
/// know, or "", is equally near to all.
std::vector<const TopologyNode*> homes_by_distance(const Topology& topology,
                                                   std::string_view pci_bus_id);

}  // namespace modalkv
