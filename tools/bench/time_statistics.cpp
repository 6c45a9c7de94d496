#include "tools/bench/time_statistics.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdlib>
#include <vector>

namespace modalkv {

double quantile_of(std::span<const double> samples, double quantile) {
  if (samples.empty() || !(quantile >= 0 && quantile <= 1)) std::abort();
  std::vector<double> sorted(samples.begin(), samples.end());
  std::sort(sorted.begin(), sorted.end());
  const double rank = quantile * static_cast<double>(sorted.size() - 1);
  const auto below = static_cast<std::size_t>(std::floor(rank));
  const std::size_t above = std::min(below + 1, sorted.size() - 1);
  return std::lerp(sorted[below], sorted[above], rank - std::floor(rank));
}

TimeSpread time_spread(std::span<const double> samples) {
  return {median_of(samples), quantile_of(samples, 0.1), quantile_of(samples, 0.9),
          quantile_of(samples, 0)};
}

}  // namespace modalkv
