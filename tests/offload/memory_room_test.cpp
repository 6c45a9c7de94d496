#include "offload/memory_room.hpp"

#include <gtest/gtest.h>
#include <unistd.h>

#include <fstream>
#include <limits>

namespace modalkv {
namespace {

namespace fs = std::filesystem;

// A tree of /proc and /sys of its own.
class MemoryRoomTest : public testing::Test {
 protected:
  ~MemoryRoomTest() override { fs::remove_all(root_); }
  void file(const fs::path& path, const std::string& text) {
    fs::create_directories((root_ / path).parent_path());
    std::ofstream(root_ / path) << text;
  }
  void expect(Bytes bytes, const std::string& by) {
    const MemoryRoom room = memory_room(1, root_);
    EXPECT_EQ(room.bytes, bytes);
    EXPECT_EQ(room.limited_by, by);
  }

  const fs::path root_ = [] {
    std::string name = (fs::temp_directory_path() / "memory_room_XXXXXX").string();
    if (mkdtemp(name.data()) == nullptr) throw std::runtime_error("no temporary folder");
    return fs::path(name);
  }();
};

TEST_F(MemoryRoomTest, NothingIsKnown) {
  expect(std::numeric_limits<Bytes>::max(), "nothing");
}

TEST_F(MemoryRoomTest, MachineAndNode) {
  file("proc/meminfo", "MemTotal: 900 kB\nMemAvailable:   700 kB\n");
  expect(700 * kKiB, "the machine's available memory");
  file("sys/devices/system/node/node1/meminfo",
       "Node 1 MemTotal: 500 kB\nNode 1 MemFree: 300 kB\nNode 1 Inactive(file): 40 kB\n");
  file("sys/devices/system/node/node0/meminfo", "Node 0 MemFree: 1 kB\n");
  expect(340 * kKiB, "the free memory of node 1");
}

TEST_F(MemoryRoomTest, Version2LimitsOfAllAncestors) {
  file("proc/self/cgroup", "0::/a/b\n");
  file("sys/fs/cgroup/a/b/memory.max", "max\n");
  file("sys/fs/cgroup/a/b/memory.current", "1000\n");
  expect(std::numeric_limits<Bytes>::max(), "nothing");
  file("sys/fs/cgroup/a/memory.max", "9000\n");
  file("sys/fs/cgroup/a/memory.current", "4000\n");
  file("sys/fs/cgroup/a/memory.stat", "anon 1000\ninactive_file 500\nactive_file 77\n");
  expect(5500, "the memory limit of cgroup /a");
  file("sys/fs/cgroup/a/b/memory.max", "800\n");  // and more than that in use
  expect(0, "the memory limit of cgroup /a/b");
}

TEST_F(MemoryRoomTest, Version1AndAMountThatIsTheContainersOwn) {
  file("proc/self/cgroup", "12:cpu,cpuacct:/x\n4:hugetlb,memory:/docker/1f2e\n0::/\n");
  file("sys/fs/cgroup/memory/memory.limit_in_bytes", "5000\n");
  file("sys/fs/cgroup/memory/memory.usage_in_bytes", "2000\n");
  file("sys/fs/cgroup/memory/memory.stat", "inactive_file 1\ntotal_inactive_file 30\n");
  expect(3030, "the memory limit of cgroup /");
}

TEST_F(MemoryRoomTest, ThisMachineHasSome) {
  const MemoryRoom room = memory_room(0);
  EXPECT_GT(room.bytes, 0);
  EXPECT_NE(room.limited_by, "nothing");
}

}  // namespace
}  // namespace modalkv
