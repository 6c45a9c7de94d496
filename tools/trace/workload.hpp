// Published statistics of multimodal traffic, as quantile tables that a generator can draw from.
#pragma once

#include <span>
#include <string_view>

#include "tools/trace/random.hpp"

namespace modalkv {

struct QuantilePoint {
  double share = 0;  ///< of values at or below `value`
  double value = 0;
};

/// One value, by inverse transform; between points in the logarithm of the value. Points ascend to
/// share 1.
double draw(std::span<const QuantilePoint> table, Random& random);

struct Workload {
  std::string_view name;
  std::string_view summary;
  std::string_view source;
  double image_share = 1;                       ///< of requests that have images
  std::span<const QuantilePoint> text_tokens;   ///< of a prompt, without its images
  std::span<const QuantilePoint> images;        ///< of a request that has any; steps, rounded up
  std::span<const QuantilePoint> image_tokens;  ///< of one image
  std::span<const QuantilePoint> output_tokens;
};

std::span<const Workload> workloads();

}  // namespace modalkv
