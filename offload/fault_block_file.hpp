// A decorator that fails on purpose: a seed decides which transfer meets which fault.
#pragma once

#include <deque>
#include <memory>
#include <mutex>
#include <random>
#include <vector>

#include "offload/block_file.hpp"

namespace modalkv {

/// Chances of a transfer (in [0, 1], adding up to at most 1) to meet a fault, and of a sync().
struct BlockFaultPlan {
  std::uint64_t seed = 1;
  double read_error = 0;   ///< of reads: io_error; the memory holds garbage
  double short_read = 0;   ///< of reads: half of it, and says so
  double bit_flip = 0;     ///< of reads and writes: ends well with one bit wrong
  double write_error = 0;  ///< of writes: io_error; half was written
  double no_space = 0;     ///< of writes: nothing was written
  double late = 0;         ///< reported after later ones
  double lost = 0;         ///< done, but nobody is told
  double sync_error = 0;
};

struct BlockFaultCounts {
  std::uint64_t read_error = 0, short_read = 0, bit_flip = 0, write_error = 0, no_space = 0,
                late = 0, lost = 0, sync_error = 0;
};

class FaultBlockFile final : public BlockFile {
 public:
  FaultBlockFile(std::unique_ptr<BlockFile> inner, const BlockFaultPlan& plan);

  /// What has been injected so far. Any thread.
  BlockFaultCounts injected() const;

  std::optional<BlockCompletion> next_completion(Nanos timeout_ns) override;
  void wake() override { inner_->wake(); }
  Status sync() override;

 private:
  enum class Fault : std::uint8_t {
    none,
    read_error,
    short_read,
    bit_flip,
    write_error,
    no_space,
    late,
    lost
  };
  struct Pending {
    BlockTransfer transfer;
    Fault fault = Fault::none;
  };

  void start(const BlockTransfer& transfer) override;
  Fault draw(BlockTransfer::Kind kind);
  void count(Fault fault);
  std::optional<BlockCompletion> next_inner(Nanos timeout_ns);
  /// What the caller is told; nothing yet where it is late, nothing ever where it is lost.
  std::optional<BlockCompletion> spoiled(const BlockCompletion& completion);

  const std::unique_ptr<BlockFile> inner_;
  const BlockFaultPlan plan_;
  mutable std::mutex mutex_;  // of random_ and injected_: sync() comes from another thread
  std::mt19937_64 random_;
  BlockFaultCounts injected_;
  std::vector<Pending> pending_;
  std::deque<BlockCompletion> refused_, late_;
};

}  // namespace modalkv
