// Units of pages on a disk, stored and loaded as a whole; what no longer fits makes room by an
// eviction policy.
//
//   store -> (evict, erase) -> pages as the disk takes them -> outcome ok: all are there, durably
//   load  -> pages as the disk takes them -> outcome ok: all are in memory, verified
//
// Only what a job has finished counts: pages of a store that failed are erased again, and a unit
// that turns out to be damaged goes altogether. Loads go first, then erasures, since stores wait
// for their room.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <optional>
#include <span>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

#include "offload/page_disk.hpp"
#include "runtime/disk_eraser.hpp"
#include "runtime/disk_units.hpp"

namespace modalkv {

/// A page, and the host memory it lies in or goes to.
struct TierPage {
  PageKey key{};
  std::span<std::byte> memory{};
};

struct TierOutcome {
  std::uint64_t job = 0;
  Status status = Status::ok;
};

struct TierStarted {
  Status status = Status::ok;
  std::uint64_t job = 0;  ///< only where `status` is ok; never 0 then
};

struct DiskTierConfig {
  EvictionPolicy policy = EvictionPolicy::lru;
  /// Of units that the disk has from before: what they save is not known any more.
  Nanos recovered_reload_ns = 10 * kMillisecond;
  std::size_t max_jobs = 256;  ///< from acceptance until their outcome is told
  /// A job that waits so long for an operation, for its key or for room ends as `timeout`. Longer
  /// than an operation of the disk may take.
  Nanos stall_ns = 30 * kSecond;
};

struct DiskTierUsage {
  Bytes capacity_bytes = 0;
  Bytes held_bytes = 0;     ///< of units, victims included until they are gone
  Bytes erasing_bytes = 0;  ///< of pages that count for nobody and may be there still
  std::size_t units = 0, pages = 0, erasing_pages = 0;
  std::size_t leaving_units = 0;  ///< victims that are not gone yet
};

struct DiskTierCounters {
  std::uint64_t stored_pages = 0, loaded_pages = 0;  ///< by jobs that ended well
  Bytes stored_bytes = 0, loaded_bytes = 0;          ///< of pages
  std::uint64_t stored_jobs = 0, loaded_jobs = 0;
  std::uint64_t failed_jobs = 0;    ///< io_error, checksum, timeout: the disk does not do its work
  std::uint64_t no_space_jobs = 0;  ///< no_space, also of what was refused as it can never fit
  std::uint64_t cancelled_jobs = 0;
  std::uint64_t evicted_units = 0, evicted_pages = 0;
  std::uint64_t damaged_units = 0;    ///< given up
  std::uint64_t failed_erasures = 0;  ///< tried again, or the victim stays
  std::uint64_t recovered_units = 0;  ///< when it was opened
};

/// One thread at a time. Nothing waits but `next`. A unit is the pages of one content id.
class DiskTier {
 public:
  /// `disk` outlives it and is its alone; what it has is taken over. Memory of jobs that have not
  /// ended when this goes is the disk's as long as the disk lives.
  explicit DiskTier(PageDisk& disk, const DiskTierConfig& config = {});

  /// Whether all of them are here, whole as far as is known. No I/O.
  bool contains(std::span<const PageKey> keys) const;

  /// All of one content id, added to its unit. Memory stays unchanged until the outcome; pages that
  /// are here already are not written again. The unit's bytes are counted here, not by `facts`.
  ///   ok        outcome: ok, all are on disk durably; else those that were not there before are
  ///             erased again: no_space (what could be evicted is not enough), io_error, checksum
  ///             (a page was damaged already), timeout, cancelled (forgotten, or the unit turned
  ///             out to be damaged)
  ///   busy      too many jobs
  ///   no_space  can never fit
  ///   rejected  none, several contents, a page twice, not the shape's bytes, larger than the disk
  ///             takes, a negative time
  TierStarted store(std::span<const TierPage> pages, const EvictionFacts& facts);
  /// All of one content id; counts as a use of its unit, which is not evicted meanwhile.
  ///   ok        outcome: ok; else the memory is undefined: checksum (the whole unit is given up),
  ///             io_error, timeout, cancelled (forgotten)
  ///   busy      too many jobs
  ///   rejected  none, several contents, not all here, not the shape's bytes
  TierStarted load(std::span<const TierPage> pages);
  /// A unit that is not evicted until it is let go, as often. Nothing: it is not here.
  std::optional<UnitId> hold(const ContentId& content);
  /// Nothing happens where it has been forgotten or given up meanwhile.
  void let_go(UnitId unit);
  /// Contents that were given up, or began to leave, since the last call; not what was forgotten.
  std::vector<ContentId> take_lost() { return std::exchange(lost_, {}); }
  /// At once nothing is here any more, and all is erased. Jobs under way end as `cancelled`. What
  /// is not erased yet when the process ends is found again: the disk's owner has to change then.
  void forget();

  /// The next job that ended, each exactly once. Waits up to `timeout_ns` while any is outstanding.
  std::optional<TierOutcome> next(Nanos timeout_ns);
  /// No job without a told outcome. Erasures go on behind that, whenever something is called.
  bool idle() const { return jobs_.empty() && outcomes_.empty(); }

  /// Nor anything that is still to be erased.
  bool settled() const { return idle() && victims_.empty() && eraser_.pages() == 0; }

  DiskTierUsage usage() const;
  DiskTierCounters counters() const { return counters_; }

 private:
  enum class Kind : std::uint8_t { load, store, evict };
  struct Job {
    Kind kind = Kind::load;
    ContentId content{};
    EvictionFacts facts{};        // of a store
    std::vector<TierPage> pages;  // of a store that has begun: those that were missing
    UnitId unit{};
    std::size_t next = 0;  // page to feed
    std::size_t running = 0;
    Bytes added_bytes = 0;     // to the unit, by a store
    Nanos waits_since_ns = 0;  // without progress at the head of its queue; 0: it does not
    Status status = Status::ok;
    bool is_queued = true, has_begun = false, has_room = false;
  };
  struct Operation {
    Kind kind = Kind::load;
    std::uint64_t job = 0;  // of a load or store
    UnitId unit{};          // of a victim
    PageKey key{};
  };

  Status check(std::span<const TierPage> pages) const;
  Status check_store(std::span<const TierPage> pages) const;
  bool has(const DiskUnit& unit, const PageKey& key) const;
  TierStarted queue(std::deque<std::uint64_t>& queue, Job job);

  bool collect(Nanos timeout_ns);
  void settle(const Completion& completion);
  void settle_victim(const Operation& operation, Status status);
  void settle_erased(const DiskEraser::Ended& ended);

  void feed();
  void feed_loads();
  void feed_victims();
  void feed_stores();
  void leave(std::deque<std::uint64_t>& queue, Job& job);
  void started(Job& job, const PageKey& key, Ticket ticket);
  bool keeps_waiting(Job& job);
  Job* storing();

  void begin_store(Job& job);
  bool take_room(Job& job);
  bool feed_page(Job& job);
  bool make_room(Job& job);
  void evict(Bytes bytes);
  void end_victim(DiskUnit& unit);

  void end_if_done(std::uint64_t number);
  void end_store(const Job& job);
  void give_up(DiskUnit& unit);
  Nanos now() const;

  PageDisk& disk_;
  const DiskTierConfig config_;
  const std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
  DiskUnits units_;
  DiskEraser eraser_;
  std::unordered_map<std::uint64_t, Job> jobs_;  // by number
  std::uint64_t next_job_ = 1;
  std::deque<std::uint64_t> loads_, stores_;                 // of which not all pages were fed
  std::deque<UnitId> victims_;                               // likewise
  std::size_t begun_ = 0;                                    // jobs
  std::vector<ContentId> storing_;                           // one store of a content at a time
  std::unordered_map<std::uint64_t, Operation> operations_;  // by ticket
  std::deque<TierOutcome> outcomes_;
  std::vector<ContentId> lost_;
  DiskTierCounters counters_;
};

}  // namespace modalkv
