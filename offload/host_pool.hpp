// Host memory of one NUMA node for pages: pinned where that can be had, grown chunk by chunk.
#pragma once

#include <atomic>
#include <cstddef>
#include <mutex>
#include <stop_token>
#include <string>
#include <vector>

#include "offload/host_memory.hpp"
#include "offload/memory_pinner.hpp"

namespace modalkv {

struct HostPoolConfig {
  Bytes bytes = 0;  ///< cut to whole pages of the system
  /// Pinned by one call, so no copy should cross its multiples. Drivers refuse very large ones.
  Bytes chunk_bytes = kGiB;
  Bytes headroom_bytes = kGiB;  ///< left to others: growing stops before less is to be had
  int touch_threads = 4;        ///< at most as many as the node has cores
  int checked_pages = 64;       ///< of a chunk are asked where they are
  bool must_pin = false;        ///< without that memory is of no use: growing stops
};

/// What a pool has become, and everything that did not go as wished.
struct HostPoolReport {
  int node = 0;
  Bytes asked_bytes = 0;
  Bytes usable_bytes = 0;
  Bytes pinned_bytes = 0;
  bool growing = true;
  std::string stopped_by;      ///< why it is smaller than asked, once it has stopped growing
  MemoryRoom room_at_start{};  ///< less the headroom
  int unpinned_chunks = 0;     ///< pageable: copies of them are slow
  std::string pin_failure;     ///< the first
  int unbound_chunks = 0;      ///< placed by the first touch of a thread of the node
  std::string bind_failure;    ///< the first
  int unbound_threads = 0;     ///< that touched pages from wherever they ran
  std::int64_t checked_pages = 0;
  std::int64_t misplaced_pages = 0;  ///< of those checked, on another node
  std::int64_t unknown_pages = 0;    ///< of those checked, the system does not tell
};

/// One line.
std::string describe(const HostPoolReport& report);

/// One contiguous range of addresses, so one space of a device. One thread at a time grows it;
/// every other call is thread-safe.
class HostPool {
 public:
  /// Reserves addresses; takes no memory. `memory` and `pinner` outlive the pool. Throws Error for
  /// sizes that are not positive, a chunk that is no multiple of the system's page, a node that is
  /// no home, or addresses that cannot be had.
  HostPool(const TopologyNode& node, const HostPoolConfig& config, HostMemory& memory,
           MemoryPinner& pinner);
  ~HostPool();
  HostPool(HostPool&&) = delete;

  std::byte* memory() const { return range_.bytes().data(); }
  Bytes reserved_bytes() const { return static_cast<Bytes>(range_.bytes().size()); }
  Bytes chunk_bytes() const { return config_.chunk_bytes; }
  const TopologyNode& node() const { return node_; }

  /// Bytes from the beginning that may be used. Never less than before.
  Bytes usable_bytes() const { return usable_bytes_.load(std::memory_order_acquire); }
  /// Whether bytes lie in one pinned chunk. They have to be usable.
  bool pinned(Bytes offset, Bytes bytes) const;
  HostPoolReport report() const;

  /// Adds a chunk: commits, binds, touches in parallel, pins, checks where its pages are. False
  /// where the pool is done: as large as asked, no memory left, or stopped within some
  /// milliseconds.
  bool grow(const std::stop_token& stop);

 private:
  std::string touch(std::span<std::byte> chunk, const std::stop_token& stop);
  std::string pin(std::span<std::byte> chunk);
  void check_placement(std::span<std::byte> chunk);
  bool end(std::string why);

  const TopologyNode node_;
  const HostPoolConfig config_;
  HostMemory& memory_;
  MemoryPinner& pinner_;
  AddressRange range_;
  std::vector<std::uint8_t> pinned_;  // a chunk; written before it becomes usable
  std::atomic<Bytes> usable_bytes_ = 0;
  mutable std::mutex mutex_;  // of report_
  HostPoolReport report_;
};

}  // namespace modalkv
