// Makes request traces with published statistics. Which images recur is in no published trace:
// reuse is a knob.
#pragma once

#include <cstdint>

#include "scheduler/request.hpp"
#include "tools/trace/workload.hpp"

namespace modalkv {

struct GeneratorOptions {
  std::int64_t requests = 1000;
  double rate_per_s = 1;
  double arrival_cv = 1;        ///< coefficient of variation of gaps between arrivals; 1: Poisson
  double image_share = -1;      ///< of requests with images; below 0: the workload's own
  std::int64_t image_pool = 0;  ///< distinct images to draw from; 0: every image is new
  double image_zipf = 1.0;      ///< popularity of the pool's images: weight rank^-zipf
  std::uint64_t seed = 1;
};

/// Same options, same trace, on every platform with IEEE arithmetic.
Trace generate_trace(const Workload& workload, const GeneratorOptions& options);

}  // namespace modalkv
