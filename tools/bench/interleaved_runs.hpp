// Timed runs of some workloads in turn, with readings of the ceilings between them.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "modalkv/units.hpp"
#include "tools/bench/ceilings.hpp"
#include "tools/bench/time_statistics.hpp"

namespace modalkv {

/// Works on copy `turn` (modulo how many there are) of its data and says how long it took. No two
/// calls have the same turn, whichever the workload.
using Workload = std::function<Nanos(std::int64_t turn)>;

/// Times of one workload by round.
struct RoundTimes {
  std::vector<std::vector<double>> rounds_ms;

  std::vector<double> all_ms() const;

  /// `amount` a run, in what the ceiling counts a second: the median over the rounds of what a
  /// round's median run reached of the ceiling's reading in the same round.
  double fraction_of(const Ceiling& ceiling, double amount) const;

  /// The median over the rounds of what a round's median run took of the sum of the parts' median
  /// runs in the same round.
  double ratio_to_sum(std::span<const RoundTimes> parts) const;
};

/// Each workload twice untimed, then rounds of a few runs of each and one reading of the ceilings:
/// exactly `runs` runs, or where that is 0 until there are 25 runs in 7 rounds and two seconds have
/// passed.
std::vector<RoundTimes> run_interleaved(std::span<const Workload> workloads, Ceilings& ceilings,
                                        int runs);

}  // namespace modalkv
