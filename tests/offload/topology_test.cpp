#include "offload/topology.hpp"

#include <gtest/gtest.h>
#include <sched.h>

#include "modalkv/error.hpp"

namespace modalkv {
namespace {

using Role = TopologyNode::Role;

// Node 1: a GPU, whose memory is node 3, and a memory expander as node 2. The cgroup forbids
// processor 7. Nobody knows where 0000:c1:00.0 hangs.
Topology two_sockets() {
  return read_topology(
      {.xml_file = MODALKV_SOURCE_DIR "/tests/offload/topologies/two_sockets.xml"});
}

std::vector<int> homes(const Topology& topology, std::string_view gpu) {
  std::vector<int> indices;
  for (const TopologyNode* node : homes_by_distance(topology, gpu)) indices.push_back(node->index);
  return indices;
}

TEST(Topology, SyntheticNodesAndCores) {
  const Topology topology = read_topology({.synthetic = "node:3(memory=4GB) core:2 pu:2"});
  ASSERT_EQ(topology.nodes.size(), 3u);
  EXPECT_EQ(topology.nodes[1].memory_bytes, 4'000'000'000);
  EXPECT_EQ(topology.nodes[1].cpus, (std::vector{4, 5, 6, 7}));
  EXPECT_EQ(topology.nodes[1].cores, (std::vector{4, 6}));
  EXPECT_EQ(topology.distances,
            (std::vector<std::vector<std::uint64_t>>{{10, 20, 20}, {20, 10, 20}, {20, 20, 10}}));
  EXPECT_EQ(homes(topology, ""), (std::vector{0, 1, 2}));
}

TEST(Topology, PoolsLiveOnNodesOfProcessorsOnly) {
  const Topology topology = two_sockets();
  ASSERT_EQ(topology.nodes.size(), 4u);
  EXPECT_EQ(topology.nodes[0].role, Role::home);
  EXPECT_EQ(topology.nodes[1].role, Role::home);
  EXPECT_EQ(topology.nodes[2].role, Role::memory_only);
  EXPECT_EQ(topology.nodes[3].role, Role::gpu_memory);
  EXPECT_TRUE(topology.nodes[2].cpus.empty());
  EXPECT_TRUE(topology.nodes[3].cpus.empty());
  EXPECT_EQ(topology.nodes[2].memory_bytes, 256 * kGiB);
}

TEST(Topology, ForbiddenProcessorsAreNotUsed) {
  EXPECT_EQ(two_sockets().nodes[1].cpus, (std::vector{4, 5, 6}));
}

TEST(Topology, NearestToTheGpuFirst) {
  const Topology topology = two_sockets();
  ASSERT_EQ(topology.gpus.size(), 2u);  // the network card is none
  EXPECT_EQ(topology.gpus[0].pci_bus_id, "0000:65:00.0");
  EXPECT_EQ(topology.gpus[1].nodes.size(), 4u);
  EXPECT_EQ(topology.distances[1], (std::vector<std::uint64_t>{21, 10, 17, 80}));
  EXPECT_EQ(homes(topology, "0000:65:00.0"), (std::vector{1, 0}));
  // Larger first where nobody knows better.
  EXPECT_EQ(homes(topology, "0000:c1:00.0"), (std::vector{0, 1}));
  EXPECT_EQ(homes(topology, "0000:ff:00.0"), (std::vector{0, 1}));
}

TEST(Topology, ThisMachineHonoursTheAffinity) {
  cpu_set_t before;
  ASSERT_EQ(sched_getaffinity(0, sizeof before, &before), 0);
  int last = 0;
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu)
    if (CPU_ISSET(cpu, &before)) last = cpu;
  cpu_set_t one;
  CPU_ZERO(&one);
  CPU_SET(last, &one);
  ASSERT_EQ(sched_setaffinity(0, sizeof one, &one), 0);
  const Topology bound = read_topology();
  ASSERT_EQ(sched_setaffinity(0, sizeof before, &before), 0);
  const Topology free = read_topology();

  const auto cpus = [](const Topology& topology) {
    std::vector<int> all;
    for (const TopologyNode& node : topology.nodes)
      all.insert(all.end(), node.cpus.begin(), node.cpus.end());
    return all;
  };
  EXPECT_EQ(cpus(bound), std::vector{last});
  EXPECT_EQ(cpus(free).size(), static_cast<std::size_t>(CPU_COUNT(&before)));
  ASSERT_EQ(homes(bound, "").size(), 1u);
  EXPECT_GT(homes_by_distance(bound, "").front()->memory_bytes, 0);
}

TEST(Topology, RefusesWhatItCannotRead) {
  EXPECT_THROW(read_topology({.synthetic = "node:2", .xml_file = "x"}), Error);
  EXPECT_THROW(read_topology({.synthetic = "nodes of great size"}), Error);
  EXPECT_THROW(read_topology({.xml_file = "/no/such/file.xml"}), Error);
}

}  // namespace
}  // namespace modalkv
