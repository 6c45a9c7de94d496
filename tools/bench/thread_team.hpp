// Threads, each on a CPU of its own, that do one piece of work at the same moment.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>
#include <span>
#include <thread>
#include <vector>

#include "modalkv/units.hpp"

namespace modalkv {

/// Used by one thread, which sleeps while the team works.
class ThreadTeam {
 public:
  /// One thread a CPU of `cpus`, bound to it.
  explicit ThreadTeam(std::span<const int> cpus);
  ~ThreadTeam();
  ThreadTeam(const ThreadTeam&) = delete;
  ThreadTeam& operator=(const ThreadTeam&) = delete;

  int threads() const { return static_cast<int>(threads_.size()); }

  /// Calls work(i) on every thread i, once all are awake: from the first begin to the last end.
  /// `work` must not throw.
  Nanos run(const std::function<void(int)>& work);

 private:
  struct Span {
    Nanos begin = 0, end = 0;
  };

  void serve(int thread);

  std::vector<Span> spans_;
  std::mutex mutex_;
  std::condition_variable changed_;
  const std::function<void(int)>* work_ = nullptr;
  std::uint64_t round_ = 0;
  int working_ = 0;
  bool ending_ = false;
  std::atomic<int> asleep_{0};
  std::vector<std::jthread> threads_;
};

}  // namespace modalkv
