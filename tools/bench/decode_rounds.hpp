// Decode steps over KV in several places, in turn: how well copies and computing overlap, and
// whether a mix of places is faster than streaming alone.
#pragma once

#include <string>
#include <vector>

#include "tools/bench/decode_engine.hpp"
#include "tools/bench/host_cpu.hpp"
#include "tools/bench/time_statistics.hpp"

namespace modalkv {

struct DecodeCase {
  std::string format = "int4";
  DecodeShape shape{};
  double link_share = 0.15;      ///< of the read ceiling
  double resident_share = 0.25;  ///< of the mixed steps' KV
  int rounds = 9;
  int steps_a_round = 5;
};

/// The steps of one placement.
struct DecodeTimes {
  PlaceShares shares{};
  Bytes streamed_bytes = 0;  ///< a step
  TimeSpread step_ms{};
  TimeSpread over_streaming{};  ///< by round, of a step over one that streams everything
  double difference = 0;        ///< relative L2, of its outputs from that step's
};

/// A step beside its copies and its computing, each by itself while the other queue is as busy.
struct OverlapTimes {
  DecodeTimes step{};
  TimeSpread copy_ms{}, compute_ms{};
  TimeSpread over_longer{};  ///< by round, of a step over the longer of the two
};

struct DecodeResult {
  TimeSpread read_bytes_per_s{};  ///< of all CPUs
  double link_bytes_per_s = 0;
  std::vector<OverlapTimes> overlaps{};  ///< everything is streamed; less; as long as it computes
  std::vector<DecodeTimes> mixes{};      ///< everything is streamed; some resident; some on the CPU
};

/// Throws Error where the case cannot be measured here.
DecodeResult measure_decode(const DecodeCase& options, const HostCpu& cpu);

}  // namespace modalkv
