// K and V that say whose they are, in numbers that every format of a policy holds exactly; and
// plain attention over them in double precision.
#pragma once

#include <cmath>
#include <cstdint>
#include <span>
#include <vector>

#include "kernels/number.hpp"
#include "modalkv/runtime.hpp"

namespace modalkv {

/// Of a token that `token` names. Sixteen equidistant numbers, the least and the most in every
/// vector: INT4 holds them exactly.
inline float kv_element(std::uint64_t token, int layer, bool in_values, int head, int dim) {
  if (dim < 2) return dim == 0 ? -2.0f : 1.75f;
  std::uint64_t hash = token * 0x9e3779b97f4a7c15u + static_cast<std::uint64_t>(layer) * 1000003 +
                       (in_values ? 777 : 0) + static_cast<std::uint64_t>(head * 131 + dim);
  hash ^= hash >> 29;
  hash *= 0xbf58476d1ce4e5b9u;
  hash ^= hash >> 32;
  return static_cast<float>(hash % 16) * 0.25f - 2.0f;
}

inline float query_element(std::uint64_t seed, std::int64_t i) {
  std::uint64_t hash =
      seed * 0xd1342543de82ef95u + static_cast<std::uint64_t>(i) * 0x9e3779b97f4a7c15u;
  hash ^= hash >> 31;
  hash *= 0x94d049bb133111ebu;
  hash ^= hash >> 30;
  return (static_cast<float>(hash % 2001) - 1000.0f) * 0.001f;
}

/// How far row `row` ([queries, query_heads]) of 16-bit outputs and of 32-bit log-sum-exps is from
/// attention over these tokens, relatively; NaN where it is no number.
inline double error_of(const RuntimeConfig& config, std::span<const std::uint64_t> tokens,
                       int layer, std::uint64_t query_seed, std::int64_t row,
                       const std::uint16_t* outputs, const float* log_sum_exp) {
  const auto dims = static_cast<std::size_t>(config.head_dim);
  const int group = config.query_heads / config.kv_heads;
  const int kv_head = static_cast<int>(row % config.query_heads) / group;
  const std::int64_t begin = row * config.head_dim;
  std::vector<double> query(dims), sum(dims);
  for (std::size_t d = 0; d < dims; ++d)
    query[d] = from_fp16(to_fp16(query_element(query_seed, begin + static_cast<std::int64_t>(d))));
  double weights = 0;
  for (const std::uint64_t token : tokens) {
    const auto number = [&](bool in_values, std::size_t d) {
      return double{kv_element(token, layer, in_values, kv_head, static_cast<int>(d))};
    };
    double logit = 0;
    for (std::size_t d = 0; d < dims; ++d) logit += query[d] * number(false, d);
    const double weight = std::exp(logit / std::sqrt(config.head_dim));
    weights += weight;
    for (std::size_t d = 0; d < dims; ++d) sum[d] += weight * number(true, d);
  }
  double error = 0, size = 0;
  for (std::size_t d = 0; d < dims; ++d) {
    const double value = sum[d] / weights,
                 difference = from_fp16(outputs[begin + static_cast<std::int64_t>(d)]) - value;
    error += difference * difference;
    size += value * value;
  }
  const double log_weights = std::log(weights), log_error = log_sum_exp[row] - log_weights;
  const double of_output = std::sqrt(error / size),
               of_log = std::abs(log_error) / (1 + std::abs(log_weights));
  return of_output >= of_log ? of_output : of_log + 0 * of_output;
}

/// To a hundredth; never where it is no number.
inline bool is_right(double error) {
  return error <= 0.01;
}

}  // namespace modalkv
