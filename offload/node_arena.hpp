// Threads that work where their memory is.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>

namespace modalkv {

/// A number of threads, the calling one among them. One caller at a time.
class NodeArena {
 public:
  /// They run anywhere.
  explicit NodeArena(int threads);
  /// A thread a processor, as the operating system numbers them: those of a TopologyNode. All stay
  /// on these processors while they work; the caller gets its own back.
  explicit NodeArena(std::span<const int> cpus);
  ~NodeArena();
  NodeArena(NodeArena&&) = delete;

  int threads() const;

  /// Calls `work` so many times, at the same time as far as threads are free; returns when all
  /// calls have returned.
  void run(int calls, const std::function<void()>& work);

  /// How often a thread worked from anywhere, as the system would not bind it.
  std::int64_t unbound() const;

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace modalkv
