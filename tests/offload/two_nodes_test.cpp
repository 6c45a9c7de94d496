// Placement on a machine that has two NUMA nodes with processors; two_nodes_vm.sh emulates one. The
// kernel is asked directly where pages are and threads run.
#include <gtest/gtest.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>
#include <mutex>
#include <set>

#include "offload/host_attention.hpp"
#include "offload/host_pools.hpp"
#include "offload/node_arena.hpp"
#include "tests/kernels/made_attention.hpp"
#include "tests/offload/fake_host_memory.hpp"

namespace modalkv {
namespace {

constexpr Bytes kPoolBytes = 80 * kMiB;

class TwoNodesNightly : public testing::Test {
 protected:
  void SetUp() override {
    homes_ = homes_by_distance(topology_, "");
    if (homes_.size() >= 2) return;
    if (std::getenv("MODALKV_EXPECT_TWO_NODES") != nullptr) FAIL() << "two nodes were promised";
    GTEST_SKIP() << "not run: this machine has " << homes_.size() << " NUMA node";
  }
  std::vector<HostPoolShare> shares(Bytes bytes) const {
    std::vector<HostPoolShare> shares;
    for (const TopologyNode* home : homes_) shares.push_back({home, bytes});
    return shares;
  }

  const Topology topology_ = read_topology();
  std::vector<const TopologyNode*> homes_;
  HostPoolConfig config_{
      .chunk_bytes = 32 * kMiB, .headroom_bytes = 128 * kMiB, .checked_pages = 32 * kMiB / 4096};
  FakePinner pinner_;
};

// Pages by the node that they are on; a negative errno where they are nowhere.
std::map<int, std::int64_t> pages_by_node(const std::byte* memory, Bytes bytes) {
  std::vector<const std::byte*> pages;
  for (Bytes i = 0; i < bytes; i += 4096) pages.push_back(memory + i);
  std::vector<int> nodes(pages.size(), -1000);
  EXPECT_EQ(syscall(SYS_move_pages, 0, pages.size(), pages.data(), nullptr, nodes.data(), 0), 0);
  std::map<int, std::int64_t> count;
  for (const int node : nodes) ++count[node];
  return count;
}

int node_of_this_thread() {
  unsigned cpu = 0, node = 0;
  EXPECT_EQ(syscall(SYS_getcpu, &cpu, &node, nullptr), 0);
  return static_cast<int>(node);
}

void expect_all_on_their_nodes(const HostPools& pools) {
  for (std::size_t i = 0; i < pools.size(); ++i) {
    const HostPool& pool = pools[i];
    ASSERT_EQ(pools.wait_usable(i, kPoolBytes, 100 * kSecond), kPoolBytes) << pools.describe();
    EXPECT_EQ(pages_by_node(pool.memory(), kPoolBytes),
              (std::map<int, std::int64_t>{{pool.node().index, kPoolBytes / 4096}}));
    const HostPoolReport report = pool.report();
    EXPECT_EQ(report.checked_pages, kPoolBytes / 4096);
    EXPECT_EQ(report.misplaced_pages, 0);
    EXPECT_EQ(report.unknown_pages, 0);
  }
}

TEST_F(TwoNodesNightly, EveryPageOfAPoolIsOnItsNode) {
  HostMemory memory;
  MlockPinner pinner;
  const HostPools pools(shares(kPoolBytes), config_, memory, pinner);
  expect_all_on_their_nodes(pools);
  EXPECT_EQ(pools[0].report().pinned_bytes, kPoolBytes);
  EXPECT_EQ(pools[0].report().unbound_chunks, 0);
}

TEST_F(TwoNodesNightly, FirstTouchPlacesThemToo) {
  FakeHostMemory memory;
  memory.on_bind = [](int) { return "denied"; };
  memory.on_room = [](int node) { return memory_room(node); };
  const HostPools pools(shares(kPoolBytes), config_, memory, pinner_);
  expect_all_on_their_nodes(pools);
  EXPECT_EQ(pools[1].report().unbound_chunks, 3);
}

TEST_F(TwoNodesNightly, PagesElsewhereAreFound) {
  FakeHostMemory memory;
  const int elsewhere = homes_[1]->index;
  memory.on_bind = [&](int) { return std::string(); };
  memory.on_bind_thread = [&](std::span<const int>) {
    return memory.HostMemory::bind_this_thread(homes_[1]->cpus);
  };
  HostPoolConfig config = config_;
  config.bytes = config.chunk_bytes;
  HostPool pool(*homes_[0], config, memory, pinner_);
  EXPECT_FALSE(pool.grow({}));
  EXPECT_EQ(pages_by_node(pool.memory(), config.bytes),
            (std::map<int, std::int64_t>{{elsewhere, config.bytes / 4096}}));
  EXPECT_EQ(pool.report().misplaced_pages, config.bytes / 4096);
}

TEST_F(TwoNodesNightly, AFullNodeEndsThePoolAndNotTheProcess) {
  const TopologyNode& node = *homes_[1];
  HostMemory memory;
  HostPoolConfig config = config_;
  config.bytes = 4 * node.memory_bytes;
  HostPool pool(node, config, memory, pinner_);
  while (pool.grow({})) {
  }
  const Bytes usable = pool.usable_bytes();
  EXPECT_GE(usable, node.memory_bytes / 4);
  EXPECT_LT(usable, node.memory_bytes);
  EXPECT_EQ(pages_by_node(pool.memory(), usable),
            (std::map<int, std::int64_t>{{node.index, usable / 4096}}));
  EXPECT_NE(pool.report().stopped_by, "");
  std::puts(describe(pool.report()).c_str());
}

void write(const std::string& file, const std::string& text) {
  ASSERT_TRUE(std::ofstream(file) << text << std::flush) << file;
}

TEST_F(TwoNodesNightly, ACgroupsLimitEndsThePoolAndNotTheProcess) {
  if (std::getenv("MODALKV_EXPECT_TWO_NODES") == nullptr)
    GTEST_SKIP() << "not run: it would change the machine's cgroups";
  const std::string root = "/sys/fs/cgroup/", group = root + "limited/";
  write(root + "cgroup.subtree_control", "+memory");
  std::filesystem::create_directory(group);
  write(group + "memory.max", std::to_string(200 * kMiB));
  write(group + "cgroup.procs", "0");
  {
    HostMemory memory;
    MlockPinner pinner;
    HostPoolConfig config = config_;
    config.bytes = 320 * kMiB;
    config.headroom_bytes = 48 * kMiB;
    HostPool pool(*homes_[1], config, memory, pinner);
    EXPECT_EQ(pool.report().room_at_start.limited_by, "the memory limit of cgroup /limited");
    while (pool.grow({})) {
    }
    EXPECT_EQ(pool.usable_bytes(), 4 * config.chunk_bytes);
    EXPECT_EQ(pool.report().stopped_by.find("the memory limit of cgroup /limited has"), 0u);
    std::puts(describe(pool.report()).c_str());
  }
  write(root + "cgroup.procs", "0");
  std::ifstream events(group + "memory.events");
  const std::string text{std::istreambuf_iterator<char>(events), {}};
  EXPECT_NE(text.find("oom_kill 0"), std::string::npos) << text;
}

TEST_F(TwoNodesNightly, ThreadsOfANodeRunThere) {
  for (const TopologyNode* home : homes_) {
    NodeArena arena(home->cpus);
    ASSERT_EQ(arena.threads(), static_cast<int>(home->cpus.size()));
    std::mutex mutex;
    std::set<int> nodes, threads;
    std::atomic<int> there = 0;
    arena.run(arena.threads(), [&] {
      // Each waits for the others: one thread cannot be all of them.
      ++there;
      const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(60);
      while (there < arena.threads() && std::chrono::steady_clock::now() < end) sched_yield();
      const std::lock_guard lock(mutex);
      nodes.insert(node_of_this_thread());
      threads.insert(gettid());
    });
    EXPECT_EQ(nodes, std::set{home->index});
    EXPECT_EQ(threads.size(), home->cpus.size());
    EXPECT_EQ(arena.unbound(), 0);
  }
}

// What a list's pages hold, copied into the pool of each node and attended to by its threads.
TEST_F(TwoNodesNightly, PagesAreAttendedToWhereTheyAre) {
  HostMemory memory;
  const HostPools pools(shares(kPoolBytes), config_, memory, pinner_);
  for (std::size_t i = 0; i < pools.size(); ++i) {
    const HostPool& pool = pools[i];
    ASSERT_GT(pools.wait_usable(i, config_.chunk_bytes, 100 * kSecond), 0) << pools.describe();
    const MadeList made = make_list({48, 2, 64, both(int4_token_head())}, 600, 1);
    PageList list = made.list();
    std::vector<const std::byte*> pages;
    Bytes used = 0;
    for (const Page& page : made.pages) {
      std::memcpy(pool.memory() + used, page.data(), page.size());
      pages.push_back(pool.memory() + used);
      used += round_up(static_cast<Bytes>(page.size()), 64);
    }
    list.pages = pages;
    const MadeQueries queries = make_queries(1, 4, 64, 1, 1);
    std::vector<float> partials(4 * 66);
    HostAttention attention(pool.node().cpus);
    const SequenceAttention sequence{queries.queries(), {&list, 1}, partials};
    attention.attend({&sequence, 1});
    expect_close(queries.queries(), {&list, 1}, 64, partials);
    EXPECT_EQ(attention.unbound(), 0);
    EXPECT_EQ(pages_by_node(pool.memory(), round_up(used, 4096)).begin()->first, pool.node().index);
  }
}

}  // namespace
}  // namespace modalkv
