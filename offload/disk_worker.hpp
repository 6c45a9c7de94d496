// The disk's own threads. One moves pages and checks them, in buffers of its own; one makes stores
// and erasures durable, as many at once as there are:
//
//   load    read -> verify -> copy to the caller
//   store   copy from the caller -> verify, seal -> write -> sync pages -> log -> sync log
//   erase                                                                  log -> sync log
//
// So the log never names bytes that a loss of power could take back. Loads go first: an engine
// waits for them.
#pragma once

#include <condition_variable>
#include <cstdlib>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

#include "offload/block_file.hpp"
#include "offload/index_log.hpp"
#include "offload/ring.hpp"

namespace modalkv {

struct DiskJob {
  enum class Kind : std::uint8_t { store, load, erase };
  Kind kind = Kind::load;
  StoredPage page{};
  const std::byte* from = nullptr;  ///< of a store: the caller's page
  std::byte* to = nullptr;          ///< of a load: the caller's memory
};

struct EndedJob {
  std::size_t job = 0;
  Status status = Status::ok;
};

/// One thread calls it.
class DiskWorker {
 public:
  /// Jobs have numbers below `max_jobs`; pages take up to `max_stored_bytes` on disk. As many are
  /// moved at a time as `file` has room for.
  DiskWorker(std::unique_ptr<BlockFile> file, IndexLog& log, std::size_t max_jobs,
             Bytes max_stored_bytes);
  /// Ends what is being moved and committed, drops what waits.
  ~DiskWorker();

  /// `number` is free again once the job has ended.
  void submit(std::size_t number, const DiskJob& job);
  /// Afterwards the caller's memory is left alone; the job still ends. False where that has to be
  /// waited for: it has ended, or its bytes are being copied right now.
  bool abandon(std::size_t number);
  /// Waits up to `timeout_ns`.
  std::optional<EndedJob> next_ended(Nanos timeout_ns);

  IndexLogCounters log_counters() const;

 private:
  using Buffer = std::unique_ptr<std::byte, decltype(&std::free)>;
  struct Held {
    DiskJob job;
    std::size_t buffer = 0;
    bool running = false, abandoned = false, copying = false;
  };

  void run_transfers(std::stop_token stop);
  std::optional<std::size_t> take();
  void begin(std::size_t number);
  void finish(const BlockCompletion& completion);
  Status deliver(std::size_t number);
  bool begin_copy(std::size_t number);
  void end_copy(std::size_t number);
  void end(std::size_t number, Status status);
  void end_locked(std::size_t number, Status status);

  void run_commits(std::stop_token stop);
  void commit(std::vector<EndedJob>& batch);

  std::span<std::byte> stored(std::size_t number);

  std::vector<Buffer> buffers_;      // outlive file_, which may still move them
  std::vector<std::size_t> unused_;  // buffers
  const std::unique_ptr<BlockFile> file_;
  IndexLog& log_;  // of the thread that commits

  mutable std::mutex mutex_;  // of what follows
  std::condition_variable_any commits_changed_;
  std::condition_variable ended_changed_;
  std::vector<Held> held_;
  Ring<std::size_t> loads_, stores_, commits_;
  Ring<EndedJob> ended_;
  IndexLogCounters log_counters_;

  std::jthread transfers_, committer_;  // last: they end before what they use
};

}  // namespace modalkv
