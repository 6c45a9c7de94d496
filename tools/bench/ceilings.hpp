// What this machine can do at best while the measured code runs: read, copy and multiply-add.
// Taken again and again between the timed runs, for the bandwidth of a shared machine changes
// within minutes.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <vector>

#include "tools/bench/huge_buffer.hpp"
#include "tools/bench/thread_team.hpp"

namespace modalkv {

/// The readings of the loop that was fastest at the median, one a measure(), in units a second.
struct Ceiling {
  std::string loop;
  std::vector<double> readings;
};

class Ceilings {
 public:
  /// Each reading reads or copies `pass_bytes` of `memory` (aligned to pages), going on where the
  /// last one ended, so that it finds nothing in the caches where `memory` exceeds them several
  /// times.
  Ceilings(ThreadTeam& team, std::span<const std::byte> memory, Bytes pass_bytes);

  /// One reading of each loop, all threads of the team at once.
  void measure();

  Ceiling read_bytes() const { return fastest(reads_); }
  /// Bytes copied: each is read once and written once.
  Ceiling copied_bytes() const { return fastest(copies_); }
  Ceiling operations_16bit() const { return dots_[0]; }
  Ceiling operations_8bit() const { return dots_[1]; }

 private:
  static Ceiling fastest(std::span<const Ceiling> loops);
  std::span<const std::byte> next_pass();

  ThreadTeam& team_;
  std::span<const std::byte> memory_;
  std::size_t thread_bytes_, cursor_ = 0;
  HugeBuffer target_;
  std::vector<Ceiling> reads_, copies_, dots_;
};

}  // namespace modalkv
