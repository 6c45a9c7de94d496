#include "offload/node_arena.hpp"

#include <gtest/gtest.h>
#include <sched.h>

#include <atomic>
#include <vector>

namespace modalkv {
namespace {

std::vector<int> own_cpus() {
  cpu_set_t set;
  CPU_ZERO(&set);
  EXPECT_EQ(sched_getaffinity(0, sizeof set, &set), 0);
  std::vector<int> cpus;
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu)
    if (CPU_ISSET(static_cast<unsigned>(cpu), &set)) cpus.push_back(cpu);
  return cpus;
}

TEST(NodeArena, WorksOnItsProcessorsAndGivesTheCallerItsOwnBack) {
  const std::vector<int> before = own_cpus();
  for (const int cpu : before) {
    NodeArena arena(std::span(&cpu, 1));
    EXPECT_EQ(arena.threads(), 1);
    arena.run(1, [&] {
      EXPECT_EQ(own_cpus(), std::vector{cpu});
      EXPECT_EQ(sched_getcpu(), cpu);
    });
    EXPECT_EQ(own_cpus(), before);
    EXPECT_EQ(arena.unbound(), 0);
  }
}

TEST(NodeArena, CallsAsOftenAsItHasThreads) {
  for (const int threads : {1, 2, 5}) {
    NodeArena arena(threads);
    std::atomic<int> calls = 0;
    for (int i = 0; i < 100; ++i) arena.run(threads, [&] { ++calls; });
    EXPECT_EQ(calls, 100 * threads);
    EXPECT_EQ(arena.unbound(), 0);
  }
}

TEST(NodeArena, CountsThreadsThatCouldNotBeBound) {
  const std::vector<int> nowhere{CPU_SETSIZE - 1};
  NodeArena arena(nowhere);
  int calls = 0;
  arena.run(1, [&] { ++calls; });
  EXPECT_EQ(calls, 1);
  EXPECT_GE(arena.unbound(), 1);
}

}  // namespace
}  // namespace modalkv
