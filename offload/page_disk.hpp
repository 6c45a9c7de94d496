// Pages on disk, by who they are. They outlive the process; a page that was acknowledged is there
// after a crash, and no page is ever served for another, whatever happened to the files.
//
//   store -> (copy, seal, write, sync, log, sync) -> completion ok: it survives
//   load  -> (read, verify key, generation and checksum, copy) -> completion ok: the page
//
// Nothing waits but next_completion. What is full says so; what to evict is the caller's choice.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "offload/device.hpp"
#include "offload/disk_files.hpp"
#include "offload/disk_worker.hpp"
#include "offload/extent_map.hpp"

namespace modalkv {

struct PageDiskConfig {
  std::string directory;
  Bytes capacity_bytes = 0;  ///< of the pages' file
  /// Whose pages: all that decides them beside their keys (weights, scales, rank). A directory that
  /// is another owner's is refused.
  ContentId owner{};
  Bytes max_page_bytes = 0;          ///< largest page_bytes() to be stored
  std::size_t max_pages = 1 << 20;   ///< bounds the index: some 250 B of memory each
  std::size_t max_operations = 256;  ///< from acceptance to the real end, be it after a timeout
  std::size_t max_transfers = 16;    ///< at a time; each has a buffer of the largest page
  Nanos timeout_ns = 10 * kSecond;   ///< of an operation
  Bytes min_compact_bytes = kMiB;    ///< a shorter index is not rewritten
  DiskBackend backend = DiskBackend::automatic;
};

struct PageDiskCounters {
  std::uint64_t stored = 0, loaded = 0, erased = 0;
  Bytes stored_bytes = 0, loaded_bytes = 0;  ///< of pages
  /// Operations that ended so; `busy`: refused.
  std::uint64_t checksum = 0, io_errors = 0, timeouts = 0, cancelled = 0, no_space = 0, busy = 0;
  std::uint64_t dropped = 0;    ///< pages given up because their bytes were wrong
  std::uint64_t stuck = 0;      ///< now: reported as timeout or cancelled, and still not ended
  std::uint64_t recovered = 0;  ///< pages found when opened
  std::uint64_t misplaced = 0;  ///< found beyond the file or over each other, and given up
  Bytes lost_index_bytes = 0;   ///< of the index, torn or damaged, when opened
  IndexLogCounters index;
};

/// One thread at a time may call it. A page is page_bytes(key.shape) bytes with a valid trailer;
/// memory handed over stays the caller's to keep until the operation's completion, or the store is
/// gone, and is not touched afterwards. Operations on one key are not ordered: one that changes it
/// at a time.
class PageDisk {
 public:
  /// Opens, recovers. Throws Error.
  explicit PageDisk(const PageDiskConfig& config);
  /// On files that were opened, maybe decorated. `config.directory` is only a name then.
  PageDisk(const PageDiskConfig& config, DiskFiles files);
  /// Operations without a completion may or may not have happened.
  ~PageDisk() = default;

  ///   ok        taken over; one completion will follow: ok, checksum (the page was damaged already
  ///             and was not stored), io_error, no_space, timeout or cancelled (it may still turn
  ///             up)
  ///   busy      too many operations, or this key is being stored or erased
  ///   no_space  the file or the index is full; erase something
  ///   rejected  no key, not the shape's bytes, larger than configured, or already here
  Submitted store(const PageKey& key, std::span<const std::byte> page);
  ///   ok        completion: ok, checksum (the page is given up), io_error, timeout or cancelled;
  ///             `into` is undefined unless ok
  ///   busy      too many operations
  ///   rejected  not here, or not the shape's bytes
  Submitted load(const PageKey& key, std::span<std::byte> into);
  /// At once no longer here; its space is free once the completion says ok. io_error, no_space,
  /// timeout, cancelled: it may be here still or again.
  Submitted erase(const PageKey& key);
  /// Whether it was stored, durably, and not erased. No I/O.
  bool contains(const PageKey& key) const;
  /// Of all that it contains, the one stored first first.
  std::vector<PageKey> keys() const;

  /// Its completion, `cancelled`, is next unless it has another by now.
  void cancel(Ticket ticket);
  /// The next operation that has ended, each exactly once. Waits up to `timeout_ns` while any is
  /// outstanding.
  std::optional<Completion> next_completion(Nanos timeout_ns);

  Bytes capacity_bytes() const { return capacity_bytes_; }
  Bytes free_bytes() const { return extents_.free_bytes(); }
  Bytes max_page_bytes() const { return max_page_bytes_; }
  std::size_t max_pages() const { return max_pages_; }
  std::size_t max_operations() const { return operations_.size(); }
  std::size_t pages() const { return present_; }
  PageDiskCounters counters() const;
  /// Where, how it is read, how full, what was lost when opened: a line.
  std::string description() const;

 private:
  enum class State : std::uint8_t { storing, present, erasing, erased };
  struct Entry {
    StoredPage page{};
    State state = State::storing;
    std::uint32_t readers = 0;
  };
  using Index = std::unordered_map<PageKey, Entry, PageKeyHash>;
  struct Operation {
    Ticket ticket{};
    DiskJob job{};
    Nanos deadline_ns = 0;
    bool running = false, reported = false;
  };

  void recover();
  Submitted refuse(Status status);
  Submitted start(const DiskJob& job);
  void set_state(Entry& entry, State state);
  std::optional<Completion> settle(const EndedJob& ended);
  void settle_load(Index::iterator at, Status status);
  void forget(Index::iterator at);
  void start_job(std::size_t number, const DiskJob& job, bool reported);
  Completion report(Operation& operation, Status status);
  void count(const DiskJob& job, Status status);
  void expire();
  Nanos now() const;

  const std::string name_;
  const Bytes capacity_bytes_, max_page_bytes_;
  const std::size_t max_pages_;
  const Nanos timeout_ns_;
  const std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();

  DiskFiles files_;
  IndexLog log_;
  Index index_;
  ExtentMap extents_;
  std::size_t present_ = 0;
  std::uint64_t next_generation_ = 1, next_sequence_ = 1;
  std::vector<Operation> operations_;
  std::vector<std::size_t> unused_;  // operations
  std::size_t unreported_ = 0;
  Nanos earliest_deadline_ns_ = 0;  // no deadline is before it
  Ring<Completion> decided_;        // timeouts and cancellations
  PageDiskCounters counters_;
  DiskWorker worker_;
};

}  // namespace modalkv
