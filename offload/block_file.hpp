// Blocks of one file, read and written without waiting: at most `max_in_flight` at a time, outcomes
// are collected. Direct I/O where the file system can, so that the page cache is left to others.
//
//   submit -> checked here once -> start() of a backend -> next_completion()
//
// One thread uses a file; only wake() and sync() may be called by any.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "modalkv/error.hpp"
#include "modalkv/units.hpp"

namespace modalkv {

/// Offsets, lengths and memory of transfers are multiples of it: what direct I/O asks for.
inline constexpr Bytes kBlockBytes = 4096;

struct BlockTransfer {
  enum class Kind : std::uint8_t { read, write };
  Kind kind = Kind::read;
  std::uint64_t tag = 0;  ///< names it in its completion
  Bytes offset = 0;
  Bytes bytes = 0;
  std::byte* memory = nullptr;  ///< the caller's until completion; a write only reads it
};

struct BlockCompletion {
  std::uint64_t tag = 0;
  Status status = Status::ok;  ///< ok, io_error or no_space
  Bytes bytes = 0;             ///< transferred; fewer than asked for at the end of the file
};

class BlockFile {
 public:
  virtual ~BlockFile() = default;
  BlockFile(const BlockFile&) = delete;
  BlockFile& operator=(const BlockFile&) = delete;

  /// `busy`: as many are in flight as may be; `rejected`: not whole blocks. Never waits.
  Status submit(const BlockTransfer& transfer);
  std::size_t in_flight() const { return in_flight_; }
  std::size_t max_in_flight() const { return max_in_flight_; }

  /// A transfer that has ended. Waits up to `timeout_ns`, or until wake().
  virtual std::optional<BlockCompletion> next_completion(Nanos timeout_ns) = 0;
  /// Ends the wait of the running or the next next_completion.
  virtual void wake() = 0;
  /// Waits until all completed writes would survive a loss of power.
  virtual Status sync() = 0;

 protected:
  explicit BlockFile(std::size_t max_in_flight) : max_in_flight_(max_in_flight) {}
  virtual void start(const BlockTransfer& transfer) = 0;
  void ended() { --in_flight_; }

 private:
  const std::size_t max_in_flight_;
  std::size_t in_flight_ = 0;
};

enum class DiskBackend : std::uint8_t {
  automatic,  ///< io_uring where the kernel and its seccomp filters let us, else threads
  io_uring,
  threads,  ///< pread and pwrite
};

struct OpenedBlockFile {
  std::unique_ptr<BlockFile> file;
  DiskBackend backend = DiskBackend::threads;
  bool direct = false;
  std::string description;  ///< backend, direct or not, and why not the better one
};

/// Opens or creates a file of `bytes` (whole blocks; sparse, cut or extended). Destroying it waits
/// for what is in flight. Throws Error.
OpenedBlockFile open_block_file(const std::string& path, Bytes bytes, std::size_t max_in_flight,
                                DiskBackend backend = DiskBackend::automatic);

}  // namespace modalkv
