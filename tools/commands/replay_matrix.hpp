// Replays of several policies at several rates, on threads; the results do not depend on how many.
#pragma once

#include <vector>

#include "runtime/replay.hpp"

namespace modalkv {

struct TimedReplay {
  ReplayResult result;
  double wall_s = 0;
};

/// One result a configuration, in their order. Draws a progress bar on `stderr` where that is a
/// terminal and not `quiet`. Throws what a replay threw, or Error where HeldSignals has one, once
/// all have stopped.
std::vector<TimedReplay> replay_all(const Trace& trace, const std::vector<ReplayConfig>& configs,
                                    int threads, bool quiet);

}  // namespace modalkv
