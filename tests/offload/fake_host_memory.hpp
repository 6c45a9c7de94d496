// Host memory and a pinner whose every step can be made to fail, or to go nowhere.
#pragma once

#include <gtest/gtest.h>

#include <functional>
#include <limits>
#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "offload/host_memory.hpp"
#include "offload/memory_pinner.hpp"

namespace modalkv {

/// The machine's own, but for what a test replaces. Hooks are called by several threads.
class FakeHostMemory final : public HostMemory {
 public:
  std::function<MemoryRoom(int node)> on_room = [](int) {
    return MemoryRoom{std::numeric_limits<Bytes>::max(), "nothing"};
  };
  std::function<std::string()> on_commit, on_touch;
  std::function<std::string(int node)> on_bind;
  std::function<std::string(std::span<const int> cpus)> on_bind_thread;
  std::function<std::optional<int>()> on_node_of;

  MemoryRoom room(int node) const override { return on_room(node); }
  std::string commit(std::span<std::byte> memory) override {
    return on_commit ? on_commit() : HostMemory::commit(memory);
  }
  std::string bind(std::span<std::byte> memory, int node) override {
    return on_bind ? on_bind(node) : HostMemory::bind(memory, node);
  }
  std::string bind_this_thread(std::span<const int> cpus) override {
    return on_bind_thread ? on_bind_thread(cpus) : HostMemory::bind_this_thread(cpus);
  }
  std::string touch(std::span<std::byte> memory) override {
    return on_touch ? on_touch() : HostMemory::touch(memory);
  }
  std::optional<int> node_of(const std::byte* page) const override {
    return on_node_of ? on_node_of() : HostMemory::node_of(page);
  }
};

/// Fails the test unless what it pinned is unpinned, each range once.
class FakePinner final : public MemoryPinner {
 public:
  std::function<std::string(std::size_t call)> on_pin = [](std::size_t) { return std::string(); };

  ~FakePinner() override { EXPECT_TRUE(pinned.empty()) << pinned.size() << " ranges left pinned"; }
  std::string pin(std::span<std::byte> memory) override {
    std::string failed = on_pin(calls++);
    if (failed.empty()) pinned.emplace(memory.data(), memory.size());
    return failed;
  }
  void unpin(std::span<std::byte> memory) override {
    const auto found = pinned.find(memory.data());
    ASSERT_TRUE(found != pinned.end() && found->second == memory.size());
    pinned.erase(found);
  }

  std::size_t calls = 0;
  std::map<std::byte*, std::size_t> pinned;
};

}  // namespace modalkv
