// A pool a NUMA node, grown in the background.
#pragma once

#include <condition_variable>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "offload/host_pool.hpp"

namespace modalkv {

struct HostPoolShare {
  const TopologyNode* node = nullptr;
  Bytes bytes = 0;
};

/// As much of `bytes` as nodes have, less `headroom_bytes` on each, the first node first.
std::vector<HostPoolShare> fill_in_order(std::span<const TopologyNode* const> nodes, Bytes bytes,
                                         Bytes headroom_bytes);

/// The same bytes on each node, for what their cores attend to; what a node lacks the others take,
/// in order.
std::vector<HostPoolShare> spread_evenly(std::span<const TopologyNode* const> nodes, Bytes bytes,
                                         Bytes headroom_bytes);

/// One thread grows them: first each by a chunk, then the first to its end, then the next, so that
/// two pools never count on the same free memory. Thread-safe.
class HostPools {
 public:
  /// Returns at once. The size in `config` is that of each share. `memory` and `pinner` outlive the
  /// pools. Throws Error as HostPool does.
  HostPools(std::span<const HostPoolShare> shares, HostPoolConfig config, HostMemory& memory,
            MemoryPinner& pinner);
  /// Stops growing within milliseconds and a call of the pinner.
  ~HostPools();

  std::size_t size() const { return pools_.size(); }
  const HostPool& operator[](std::size_t i) const { return *pools_[i]; }

  /// Waits until pool `i` has `bytes` or is done growing; returns what it has, also after the
  /// timeout.
  Bytes wait_usable(std::size_t i, Bytes bytes, Nanos timeout_ns) const;
  /// A line a pool.
  std::string describe() const;

 private:
  void grow(const std::stop_token& stop);

  std::vector<std::unique_ptr<HostPool>> pools_;
  mutable std::mutex mutex_;
  mutable std::condition_variable grown_;
  std::jthread thread_;  // last: it ends before what it uses
};

}  // namespace modalkv
