// A disk in memory that loses power: of what was not synced each sector made it or did not.
#pragma once

#include <algorithm>
#include <condition_variable>
#include <cstring>
#include <deque>
#include <memory>
#include <mutex>

#include "offload/disk_files.hpp"
#include "tests/offload/memory_log.hpp"

namespace modalkv {

class MemoryDisk {
 public:
  explicit MemoryDisk(Bytes pages_bytes)
      : cached_(static_cast<std::size_t>(pages_bytes)), durable_(cached_) {}
  /// All of it at one moment.
  MemoryDisk& operator=(const MemoryDisk& other) {
    const std::scoped_lock lock(mutex_, other.mutex_);
    log_.copy(other.log_);
    cached_ = other.cached_;
    durable_ = other.durable_;
    return *this;
  }

  void lose_power(std::mt19937_64& random) {
    log_.lose_power(random);
    for (std::size_t at = 0; at < cached_.size(); at += kSector)
      if (random() % 2 == 0) std::copy_n(&cached_[at], kSector, &durable_[at]);
    cached_ = durable_;
  }

  /// A bit of the bytes that are here just so; false where they are not.
  bool flip(std::span<const std::byte> bytes) {
    const std::lock_guard lock(mutex_);
    const auto found = std::search(cached_.begin(), cached_.end(), bytes.begin(), bytes.end());
    if (found == cached_.end()) return false;
    *found ^= std::byte{1};
    return true;
  }
  /// The log's next writes and syncs, as many.
  void fail_log(int writes, int syncs) {
    const std::lock_guard lock(mutex_);
    log_.fail_writes = writes;
    log_.fail_syncs = syncs;
  }

  /// Nothing becomes durable in the log as long as it is kept.
  std::unique_lock<std::mutex> hold_log() { return std::unique_lock(log_gate_); }

  /// Live as long as this.
  DiskFiles files(std::size_t max_in_flight) {
    DiskFiles files;
    files.index = std::make_unique<Log>(*this);
    files.pages.file = std::make_unique<Pages>(*this, max_in_flight);
    files.pages.description = "memory";
    return files;
  }

 private:
  static constexpr std::size_t kSector = 512;

  class Log final : public LogFile {
   public:
    explicit Log(MemoryDisk& disk) : disk_(disk) {}
    std::vector<std::byte> read() override {
      const std::lock_guard lock(disk_.mutex_);
      return disk_.log_.read();
    }
    Status write(Bytes offset, std::span<const std::byte> bytes) override {
      const std::lock_guard lock(disk_.mutex_);
      return disk_.log_.write(offset, bytes);
    }
    Status sync() override {
      const std::scoped_lock lock(disk_.log_gate_, disk_.mutex_);
      return disk_.log_.sync();
    }
    Status replace(std::span<const std::byte> bytes) override {
      const std::lock_guard lock(disk_.mutex_);
      return disk_.log_.replace(bytes);
    }
    bool lost() const override { return false; }

   private:
    MemoryDisk& disk_;
  };

  class Pages final : public BlockFile {
   public:
    Pages(MemoryDisk& disk, std::size_t max_in_flight) : BlockFile(max_in_flight), disk_(disk) {}

    std::optional<BlockCompletion> next_completion(Nanos timeout_ns) override {
      std::unique_lock lock(mutex_);
      changed_.wait_for(lock, std::chrono::nanoseconds(timeout_ns),
                        [&] { return woken_ || !done_.empty(); });
      woken_ = false;
      if (done_.empty()) return std::nullopt;
      const BlockCompletion completion = done_.front();
      done_.pop_front();
      ended();
      return completion;
    }
    void wake() override {
      const std::lock_guard lock(mutex_);
      woken_ = true;
      changed_.notify_one();
    }
    Status sync() override {
      const std::lock_guard lock(disk_.mutex_);
      disk_.durable_ = disk_.cached_;
      return Status::ok;
    }

   private:
    void start(const BlockTransfer& transfer) override {
      {
        const std::lock_guard lock(disk_.mutex_);
        std::byte* at = &disk_.cached_[static_cast<std::size_t>(transfer.offset)];
        const auto bytes = static_cast<std::size_t>(transfer.bytes);
        if (transfer.kind == BlockTransfer::Kind::read) {
          std::memcpy(transfer.memory, at, bytes);
        } else {
          std::memcpy(at, transfer.memory, bytes);
        }
      }
      const std::lock_guard lock(mutex_);
      done_.push_back({transfer.tag, Status::ok, transfer.bytes});
    }

    MemoryDisk& disk_;
    std::mutex mutex_;
    std::condition_variable changed_;
    std::deque<BlockCompletion> done_;
    bool woken_ = false;
  };

  std::mutex log_gate_;
  mutable std::mutex mutex_;
  MemoryLog log_;
  std::vector<std::byte> cached_, durable_;
};

}  // namespace modalkv
