#include "offload/host_pool.hpp"

#include <gtest/gtest.h>

#include <cstring>
#include <fstream>

#include "modalkv/error.hpp"
#include "tests/offload/fake_host_memory.hpp"

namespace modalkv {
namespace {

constexpr Bytes kChunk = 4 * kMiB;

TopologyNode home() {
  const Topology topology = read_topology();
  return *homes_by_distance(topology, "").front();
}

HostPoolConfig config(Bytes bytes) {
  return {.bytes = bytes, .chunk_bytes = kChunk, .headroom_bytes = kMiB};
}

class HostPoolTest : public testing::Test {
 protected:
  void grow(HostPool& pool) {
    while (pool.grow(never_)) {
    }
  }
  bool says(const HostPool& pool, const std::string& text) {
    const std::string line = describe(pool.report());
    EXPECT_NE(line.find(text), std::string::npos) << line;
    EXPECT_EQ(line.find('\n'), std::string::npos) << line;
    return line.find(text) != std::string::npos;
  }

  const std::stop_token never_{};
  const TopologyNode node_ = home();
  FakeHostMemory memory_;
  FakePinner pinner_;
};

TEST_F(HostPoolTest, GrowsByChunksOfPinnedMemoryOnItsNode) {
  HostPool pool(node_, config(3 * kChunk + kMiB + 5), memory_, pinner_);
  EXPECT_EQ(pool.reserved_bytes(), 3 * kChunk + kMiB);
  EXPECT_EQ(pool.usable_bytes(), 0);
  EXPECT_TRUE(pool.grow(never_));
  EXPECT_EQ(pool.usable_bytes(), kChunk);
  EXPECT_TRUE(pool.report().growing);
  grow(pool);
  EXPECT_EQ(pool.usable_bytes(), pool.reserved_bytes());
  EXPECT_FALSE(pool.grow(never_));
  for (Bytes i = 0; i < pool.usable_bytes(); i += 4096) ASSERT_EQ(pool.memory()[i], std::byte{0});
  std::memset(pool.memory(), 1, static_cast<std::size_t>(pool.usable_bytes()));

  const HostPoolReport report = pool.report();
  EXPECT_EQ(report.usable_bytes, report.asked_bytes);
  EXPECT_EQ(report.pinned_bytes, report.asked_bytes);
  EXPECT_EQ(report.stopped_by, "");
  EXPECT_EQ(report.checked_pages, 4 * 64);
  EXPECT_EQ(report.misplaced_pages, 0);
  EXPECT_EQ(pinner_.pinned.size(), 4u);
  EXPECT_TRUE(says(pool, "; pinned"));
}

TEST_F(HostPoolTest, StopsWherePinningFailsAndPageableMemoryIsOfNoUse) {
  pinner_.on_pin = [](std::size_t call) { return call == 1 ? "no pages locked today" : ""; };
  HostPoolConfig must = config(3 * kChunk);
  must.must_pin = true;
  HostPool pool(node_, must, memory_, pinner_);
  grow(pool);
  EXPECT_EQ(pool.usable_bytes(), kChunk);
  EXPECT_EQ(pool.report().stopped_by, "no pages locked today");
}

TEST_F(HostPoolTest, GoesOnPageableWherePinningFails) {
  pinner_.on_pin = [](std::size_t call) { return call == 1 ? "no pages locked today" : ""; };
  HostPool pool(node_, config(3 * kChunk), memory_, pinner_);
  grow(pool);
  EXPECT_EQ(pool.usable_bytes(), 3 * kChunk);
  EXPECT_EQ(pool.report().pinned_bytes, 2 * kChunk);
  EXPECT_EQ(pool.report().unpinned_chunks, 1);
  EXPECT_TRUE(pool.pinned(0, kChunk));
  EXPECT_FALSE(pool.pinned(kChunk, 64));
  EXPECT_TRUE(pool.pinned(2 * kChunk, kChunk));
  EXPECT_FALSE(pool.pinned(kChunk - 64, 128));
  EXPECT_TRUE(says(pool, "the rest pageable (no pages locked today)"));
}

TEST_F(HostPoolTest, PlacesByFirstTouchWhereBindingFails) {
  std::mutex mutex;
  std::vector<std::vector<int>> bound;
  memory_.on_bind = [](int) { return "denied"; };
  memory_.on_bind_thread = [&](std::span<const int> cpus) {
    const std::lock_guard lock(mutex);
    bound.emplace_back(cpus.begin(), cpus.end());
    return std::string();
  };
  HostPool pool(node_, config(2 * kChunk), memory_, pinner_);
  grow(pool);
  EXPECT_EQ(pool.usable_bytes(), 2 * kChunk);
  EXPECT_EQ(pool.report().unbound_chunks, 2);
  ASSERT_GE(bound.size(), 2u);
  for (const auto& cpus : bound) EXPECT_EQ(cpus, node_.cpus);
  EXPECT_TRUE(says(pool, "2 chunks not bound, placed by first touch (denied)"));

  memory_.on_bind_thread = [](std::span<const int>) { return "denied, too"; };
  HostPool nowhere(node_, config(kChunk), memory_, pinner_);
  grow(nowhere);
  EXPECT_TRUE(says(nowhere, "1 threads touched them from anywhere"));
}

TEST_F(HostPoolTest, StopsBeforeMemoryRunsOutAndSaysWhy) {
  Bytes room = 2 * kChunk + 3 * kMiB;
  memory_.on_room = [&](int) { return MemoryRoom{room, "the memory limit of cgroup /a"}; };
  HostPool pool(node_, config(8 * kChunk), memory_, pinner_);
  EXPECT_TRUE(says(pool, "growing, no more than 0.01 GiB will fit: the memory limit of cgroup /a"));
  EXPECT_TRUE(pool.grow(never_));
  room -= kChunk;
  EXPECT_TRUE(pool.grow(never_));
  room -= kChunk;
  EXPECT_FALSE(pool.grow(never_));
  EXPECT_EQ(pool.usable_bytes(), 2 * kChunk);
  EXPECT_TRUE(says(pool, "no more: the memory limit of cgroup /a has 0.00 GiB left"));
  room = 100 * kChunk;
  EXPECT_FALSE(pool.grow(never_)) << "what has stopped stays as it is";
}

TEST_F(HostPoolTest, StopsWhereTheSystemRefuses) {
  memory_.on_commit = [] { return "mprotect: no"; };
  HostPool uncommitted(node_, config(2 * kChunk), memory_, pinner_);
  EXPECT_FALSE(uncommitted.grow(never_));
  EXPECT_TRUE(says(uncommitted, "no more: mprotect: no"));

  memory_.on_commit = nullptr;
  memory_.on_touch = [] { return "madvise: no memory"; };
  HostPool untouched(node_, config(2 * kChunk), memory_, pinner_);
  EXPECT_FALSE(untouched.grow(never_));
  EXPECT_EQ(untouched.usable_bytes(), 0);
  EXPECT_TRUE(says(untouched, "no more: madvise: no memory"));
  EXPECT_EQ(pinner_.calls, 0u);
}

TEST_F(HostPoolTest, SaysWherePagesAre) {
  int asked = 0;
  memory_.on_node_of = [&]() -> std::optional<int> {
    ++asked;
    if (asked <= 10) return std::nullopt;
    return asked <= 14 ? node_.index + 1 : node_.index;
  };
  HostPool pool(node_, config(kChunk), memory_, pinner_);
  grow(pool);
  EXPECT_EQ(pool.report().unknown_pages, 10);
  EXPECT_EQ(pool.report().misplaced_pages, 4);
  EXPECT_TRUE(says(pool, "50 of 64 checked pages on the node, of 10 nobody tells"));
}

TEST_F(HostPoolTest, StopsInTheMiddleOfAChunk) {
  std::stop_source stop;
  std::atomic<int> pieces = 0;
  memory_.on_touch = [&] {
    if (++pieces == 2) stop.request_stop();
    return std::string();
  };
  HostPoolConfig one_chunk = config(64 * kChunk);
  one_chunk.chunk_bytes = 64 * kChunk;
  one_chunk.touch_threads = 1;
  HostPool pool(node_, one_chunk, memory_, pinner_);
  EXPECT_FALSE(pool.grow(stop.get_token()));
  EXPECT_EQ(pieces, 2);
  EXPECT_EQ(pool.usable_bytes(), 0);
  EXPECT_EQ(pinner_.calls, 0u);
  EXPECT_TRUE(says(pool, "no more: stopped"));
}

TEST_F(HostPoolTest, RefusesImpossibleConfigs) {
  const auto refused = [&](const TopologyNode& node, const HostPoolConfig& wrong) {
    EXPECT_THROW(HostPool(node, wrong, memory_, pinner_), Error);
  };
  refused(node_, config(100));
  refused(node_, config(-kChunk));
  refused(node_, config(Bytes{1} << 60));
  HostPoolConfig odd = config(kChunk);
  odd.chunk_bytes = 4097;
  refused(node_, odd);
  TopologyNode gpu = node_;
  gpu.role = TopologyNode::Role::gpu_memory;
  refused(gpu, config(kChunk));
}

long locked_kib() {
  std::ifstream status("/proc/self/status");
  long kib = 0;
  for (std::string word; status >> word;)
    if (word == "VmLck:") status >> kib;
  return kib;
}

TEST(MlockPinner, PinsWhatIsThere) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  GTEST_SKIP() << "sanitizers make mlock do nothing";
#endif
  HostMemory memory;
  MlockPinner pinner;
  AddressRange range(16 * 4096);
  EXPECT_NE(pinner.pin(range.bytes()), "") << "there is no memory yet";
  pinner.unpin(range.bytes());
  ASSERT_EQ(memory.commit(range.bytes()), "");
  ASSERT_EQ(memory.touch(range.bytes()), "");
  const long before = locked_kib();
  EXPECT_EQ(pinner.pin(range.bytes()), "");
  EXPECT_EQ(locked_kib() - before, 64);
  pinner.unpin(range.bytes());
  EXPECT_EQ(locked_kib(), before);
}

}  // namespace
}  // namespace modalkv
