#include "offload/host_pools.hpp"

#include <gtest/gtest.h>

#include <chrono>
#include <semaphore>

#include "tests/offload/fake_host_memory.hpp"

namespace modalkv {
namespace {

constexpr Bytes kChunk = 2 * kMiB;
constexpr Nanos kLong = 60 * kSecond;

// Two nodes with the processors of this machine: where memory lands is left to fakes.
class HostPoolsTest : public testing::Test {
 protected:
  HostPoolsTest() {
    const Topology topology = read_topology();
    nodes_.assign(2, *homes_by_distance(topology, "").front());
    nodes_[0].index = 3;
    nodes_[1].index = 5;
    memory_.on_bind = [this](int node) {
      const std::lock_guard lock(mutex_);
      bound_.push_back(node);
      return std::string();
    };
  }
  std::vector<HostPoolShare> shares(Bytes first, Bytes second) const {
    return {{&nodes_[0], first}, {&nodes_[1], second}};
  }

  HostPoolConfig config_{.chunk_bytes = kChunk, .headroom_bytes = 0};
  std::vector<TopologyNode> nodes_;
  std::mutex mutex_;
  std::vector<int> bound_;  // nodes, in order
  FakeHostMemory memory_;
  FakePinner pinner_;
};

TEST_F(HostPoolsTest, EachHasAChunkThenTheFirstIsFilled) {
  HostPools pools(shares(3 * kChunk, 3 * kChunk), config_, memory_, pinner_);
  EXPECT_EQ(pools.wait_usable(1, 3 * kChunk, kLong), 3 * kChunk);
  EXPECT_EQ(pools.wait_usable(0, 3 * kChunk, kLong), 3 * kChunk);
  EXPECT_EQ(bound_, (std::vector{3, 5, 3, 3, 5, 5}));
  EXPECT_EQ(pools.describe().substr(0, 19), "host pool on node 3");
}

TEST_F(HostPoolsTest, UsableFromTheFirstChunkWhileTheRestIsStillToCome) {
  std::counting_semaphore<> chunks(0);
  memory_.on_commit = [&] {
    chunks.acquire();
    return std::string();
  };
  memory_.on_touch = [] { return std::string(); };
  memory_.on_node_of = [] { return 3; };
  HostPools pools(shares(4 * kChunk, 4 * kChunk), config_, memory_, pinner_);
  EXPECT_EQ(pools.wait_usable(0, kChunk, 0), 0) << "construction waited for memory";
  chunks.release();
  EXPECT_EQ(pools.wait_usable(0, kChunk, kLong), kChunk);
  EXPECT_TRUE(pools[0].report().growing);
  EXPECT_EQ(pools[1].usable_bytes(), 0);
  chunks.release(100);
  EXPECT_EQ(pools.wait_usable(1, 4 * kChunk, kLong), 4 * kChunk);
}

TEST_F(HostPoolsTest, WaitingEndsWhereThePoolStopsShort) {
  memory_.on_room = [](int) { return MemoryRoom{0, "somebody"}; };
  HostPools pools(shares(4 * kChunk, kChunk), config_, memory_, pinner_);
  EXPECT_EQ(pools.wait_usable(0, 4 * kChunk, kLong), 0);
  EXPECT_NE(pools.describe().find("no more: somebody has"), std::string::npos);
}

// Growing to the end would take minutes.
TEST_F(HostPoolsTest, EndsInTheMiddleOfGrowing) {
  std::atomic<int> touched = 0;
  memory_.on_commit = memory_.on_touch = [&] {
    ++touched;
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
    return std::string();
  };
  memory_.on_node_of = [] { return 3; };
  config_.chunk_bytes = 8 * kMiB;
  {
    HostPools pools(shares(64 * kGiB, 64 * kGiB), config_, memory_, pinner_);
    while (touched < 3) std::this_thread::yield();
    EXPECT_LT(pools[0].usable_bytes(), pools[0].reserved_bytes());
  }
  EXPECT_LT(touched, 10'000);
}

TEST(FillInOrder, NearestFirstLessTheHeadroom) {
  const TopologyNode near{.index = 1, .memory_bytes = 10 * kGiB},
      small{.index = 2, .memory_bytes = kGiB}, far{.index = 0, .memory_bytes = 20 * kGiB};
  const std::vector<const TopologyNode*> nodes{&near, &small, &far};
  const auto shares = fill_in_order(nodes, 12 * kGiB, kGiB);
  ASSERT_EQ(shares.size(), 2u);
  EXPECT_EQ(shares[0].node, &near);
  EXPECT_EQ(shares[0].bytes, 9 * kGiB);
  EXPECT_EQ(shares[1].node, &far);
  EXPECT_EQ(shares[1].bytes, 3 * kGiB);
}

TEST(SpreadEvenly, WhatANodeLacksTheOthersTake) {
  const TopologyNode a{.index = 0, .memory_bytes = 10 * kGiB},
      small{.index = 1, .memory_bytes = 2 * kGiB}, none{.index = 2, .memory_bytes = kGiB},
      b{.index = 3, .memory_bytes = 20 * kGiB};
  const std::vector<const TopologyNode*> nodes{&a, &small, &none, &b};
  const auto bytes_of = [&](Bytes bytes) {
    std::map<int, Bytes> by_node;
    for (const HostPoolShare& share : spread_evenly(nodes, bytes, kGiB))
      by_node[share.node->index] = share.bytes;
    return by_node;
  };
  EXPECT_EQ(bytes_of(3 * kGiB), (std::map<int, Bytes>{{0, kGiB}, {1, kGiB}, {3, kGiB}}));
  EXPECT_EQ(bytes_of(9 * kGiB), (std::map<int, Bytes>{{0, 4 * kGiB}, {1, kGiB}, {3, 4 * kGiB}}));
  EXPECT_EQ(bytes_of(100 * kGiB), (std::map<int, Bytes>{{0, 9 * kGiB}, {1, kGiB}, {3, 19 * kGiB}}));
}

}  // namespace
}  // namespace modalkv
