// A log in memory that loses power: what was not synced may be there, in any part, or not.
#pragma once

#include <algorithm>
#include <random>
#include <vector>

#include "offload/log_file.hpp"

namespace modalkv {

class MemoryLog final : public LogFile {
 public:
  std::vector<std::byte> read() override { return cached_; }

  Status write(Bytes offset, std::span<const std::byte> bytes) override {
    const auto at = static_cast<std::size_t>(offset);
    std::size_t count = bytes.size();
    if (fail_writes > 0) --fail_writes, count = count * 2 / 3;
    cached_.resize(std::max(cached_.size(), at + count));
    std::copy_n(bytes.begin(), count, cached_.begin() + static_cast<std::ptrdiff_t>(at));
    return count == bytes.size() ? Status::ok : Status::no_space;
  }

  Status sync() override {
    if (fail_syncs > 0) return --fail_syncs, Status::io_error;
    durable_ = cached_;
    return Status::ok;
  }

  Status replace(std::span<const std::byte> bytes) override {
    if (fail_replaces > 0) return --fail_replaces, Status::no_space;
    durable_ = cached_ = {bytes.begin(), bytes.end()};
    return Status::ok;
  }

  bool lost() const override { return false; }

  /// Each unsynced 64 bytes made it or did not, and so did the new length.
  void lose_power(std::mt19937_64& random) {
    std::vector<std::byte> left = durable_;
    if (random() % 2 == 0) left.resize(std::max(left.size(), cached_.size()));
    for (std::size_t at = 0; at < std::min(left.size(), cached_.size()); at += 64)
      if (random() % 2 == 0)
        std::copy_n(cached_.begin() + static_cast<std::ptrdiff_t>(at),
                    std::min<std::size_t>(64, std::min(left.size(), cached_.size()) - at),
                    left.begin() + static_cast<std::ptrdiff_t>(at));
    durable_ = cached_ = left;
  }

  void copy(const MemoryLog& other) {
    cached_ = other.cached_;
    durable_ = other.durable_;
  }

  int fail_writes = 0, fail_syncs = 0, fail_replaces = 0;

 private:
  std::vector<std::byte> cached_, durable_;
};

}  // namespace modalkv
