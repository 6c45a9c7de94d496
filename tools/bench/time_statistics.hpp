// What many timings of one thing say.
#pragma once

#include <span>

namespace modalkv {

/// The value below which the share `quantile` (0 to 1) of the samples lies, interpolated between
/// neighbours in rank. At least one sample, in any order.
double quantile_of(std::span<const double> samples, double quantile);

inline double median_of(std::span<const double> samples) {
  return quantile_of(samples, 0.5);
}

/// Of times, in the unit of the samples.
struct TimeSpread {
  double median = 0, p10 = 0, p90 = 0, min = 0;
};

TimeSpread time_spread(std::span<const double> samples);

}  // namespace modalkv
