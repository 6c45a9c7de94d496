// What a layer of a decode step costs the engine's thread: the runtime's own time, on a device that
// does nothing.
#pragma once

#include <vector>

#include "modalkv/units.hpp"
#include "tools/bench/time_statistics.hpp"

namespace modalkv {

struct ThreadCostCase {
  Tokens pages = 256;  ///< of 64 image tokens, of each sequence; a page of text comes on top
  int rounds = 40;
};

/// Microseconds a layer in which each sequence of a batch is given a token and attended to.
struct ThreadCost {
  static constexpr int kLayers = 32, kKvHeads = 8, kStepsARound = 4;

  int batch = 0;
  bool streamed = false;  ///< or all KV is resident
  double goal_us = 0;
  TimeSpread cpu{};                                  ///< processor time of the thread, by step
  double append_us = 0, attend_us = 0, poll_us = 0;  ///< medians of elapsed time
};

/// Batches of 1 and of 32, resident and streamed, in turn. Throws Error where they do not fit.
std::vector<ThreadCost> measure_thread_cost(const ThreadCostCase& options);

}  // namespace modalkv
