// Pages on disk that count for nobody: erased until the disk says that they are gone. What a store
// left that timed out may turn up late, and an erasure may fail.
#pragma once

#include <chrono>
#include <cstddef>
#include <deque>
#include <optional>
#include <unordered_map>
#include <unordered_set>

#include "offload/page_disk.hpp"

namespace modalkv {

class DiskEraser {
 public:
  explicit DiskEraser(PageDisk& disk) : disk_(disk) {}

  /// On disk or not.
  void add(const PageKey& key);
  bool contains(const PageKey& key) const { return pages_.contains(key); }
  /// Starts as many erasures as the disk takes.
  void feed();

  struct Ended {
    PageKey key{};
    Status status = Status::ok;  ///< not ok: tried again after a while
  };
  /// None where the operation is not of this.
  std::optional<Ended> settle(const Completion& completion);

  std::size_t pages() const { return pages_.size(); }
  Bytes bytes() const { return bytes_; }
  std::size_t running() const { return running_.size(); }

 private:
  using Clock = std::chrono::steady_clock;

  void remove(const PageKey& key);

  PageDisk& disk_;
  std::unordered_set<PageKey, PageKeyHash> pages_;
  std::deque<PageKey> waiting_;
  std::unordered_map<std::uint64_t, PageKey> running_;  // by ticket
  Bytes bytes_ = 0;                                     // on disk, of pages_
  Nanos pause_ns_ = 0;                                  // after failures in a row
  Clock::time_point resume_{};
};

}  // namespace modalkv
