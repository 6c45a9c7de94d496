// A histogram of durations with a bounded relative error, cheap enough for every token of a trace.
#pragma once

#include <cstdint>
#include <vector>

#include "modalkv/units.hpp"

namespace modalkv {

/// Buckets of 1/64 of an octave (about 1.1 %): a quantile is exact to that, mean and deviation are
/// exact. Durations are >= 0; one second takes 64 x 30 buckets, a fixed 32 KiB for all. Not
/// thread-safe.
class LatencyHistogram {
 public:
  LatencyHistogram();
  /// Adds `count` equal durations. `duration_ns` >= 0.
  void add(Nanos duration_ns, std::int64_t count = 1);
  std::int64_t count() const { return count_; }
  double mean_ns() const;
  double standard_deviation_ns() const;
  /// The duration below which a share of `quantile` (0..1) lies; 0 where empty.
  double quantile_ns(double quantile) const;

 private:
  std::vector<std::int64_t> buckets_;
  std::int64_t count_ = 0;
  double sum_ = 0;
  double sum_of_squares_ = 0;
};

}  // namespace modalkv
