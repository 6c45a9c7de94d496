// Which pages lie where on disk: an append-only log, so that a crash at any moment leaves a prefix.
//
//   header | record | record | ...     each 128 bytes
//
// A record carries the checksum of the one before it and ends in its own: the log is read up to the
// first record that does not continue the chain, be it torn, damaged or left over from a batch that
// failed. What is missing then is pages, never the truth of those that are there; and who loads a
// page checks who it is anyway (page_seal.hpp).
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "offload/extent_map.hpp"
#include "offload/log_file.hpp"
#include "offload/page_key.hpp"

namespace modalkv {

inline constexpr Bytes kIndexRecordBytes = 128;

struct StoredPage {
  PageKey key{};
  std::uint64_t generation = 0;  ///< of the directory: no two stores have the same
  Extent extent{};

  friend constexpr bool operator==(const StoredPage&, const StoredPage&) = default;
};

struct IndexRecord {
  enum class Kind : std::uint32_t { store = 1, erase = 2 };
  Kind kind = Kind::store;
  StoredPage page{};
};

struct RecoveredIndex {
  std::vector<StoredPage> pages;
  std::uint64_t next_generation = 1;
  std::uint64_t chain = 0;  ///< checksum of the last record, or of the header
  Bytes read_bytes = 0;     ///< of the log; 0: there was none, or its header is damaged
  Bytes lost_bytes = 0;     ///< behind them, torn or damaged
};

/// What a log says. Throws Error, beginning with `name`, where it is another program's, another
/// version's or another owner's; damage is no error.
RecoveredIndex parse_index(std::span<const std::byte> log, const ContentId& owner,
                           const std::string& name);

/// A log that says just this.
std::vector<std::byte> write_index(const ContentId& owner, std::span<const StoredPage> pages,
                                   std::uint64_t next_generation);

struct IndexLogCounters {
  std::uint64_t compactions = 0;
  std::uint64_t failed_compactions = 0;  ///< the longer log stays in use
  bool failed = false;  ///< a sync failed: nothing more is promised until the log is opened again
};

/// One thread. Bounded: rewritten once it is twice as long as it need be.
class IndexLog {
 public:
  /// Reads `file`, and rewrites it where it is new, damaged or mostly of the past. Throws Error.
  IndexLog(LogFile& file, const ContentId& owner, const std::string& name,
           Bytes min_compact_bytes = kMiB);

  /// What it said when opened; gives it away.
  RecoveredIndex take_recovered() { return std::move(recovered_); }

  /// Durable when ok; else none of the records counts, unless the process ends before the log grows
  /// again. `no_space` or `io_error`.
  Status append(std::span<const IndexRecord> records);

  Bytes bytes() const { return bytes_; }
  const IndexLogCounters& counters() const { return counters_; }

 private:
  bool is_long() const { return bytes_ > compact_at_; }
  void compact();
  Status replace(std::span<const std::byte> log, std::size_t pages);

  LogFile& file_;
  const ContentId owner_;
  const std::string name_;
  const Bytes min_compact_bytes_;
  RecoveredIndex recovered_;
  Bytes bytes_ = 0;
  Bytes compact_at_ = 0;
  std::uint64_t chain_ = 0;
  std::uint32_t attempt_ = 0;
  std::vector<std::byte> batch_;
  IndexLogCounters counters_;
};

}  // namespace modalkv
