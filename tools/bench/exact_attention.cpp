#include "tools/bench/exact_attention.hpp"

#include <algorithm>
#include <cmath>
#include <utility>

namespace modalkv {

ExactAttention::ExactAttention(std::vector<double> query, double scale)
    : query_(std::move(query)), scale_(scale) {}

void ExactAttention::add(std::span<const float> key, std::span<const float> value) {
  double dot = 0;
  for (std::size_t d = 0; d < query_.size(); ++d) dot += query_[d] * static_cast<double>(key[d]);
  logits_.push_back(scale_ * dot);
  values_.push_back(value);
}

std::vector<double> ExactAttention::output() const {
  const double maximum = *std::max_element(logits_.begin(), logits_.end());
  std::vector<double> output(query_.size());
  double sum = 0;
  for (std::size_t token = 0; token < logits_.size(); ++token) {
    const double weight = std::exp(logits_[token] - maximum);
    sum += weight;
    for (std::size_t d = 0; d < output.size(); ++d)
      output[d] += weight * static_cast<double>(values_[token][d]);
  }
  for (double& element : output) element /= sum;
  return output;
}

double relative_l2_error(std::span<const float> found, std::span<const double> expected) {
  double difference = 0, norm = 0;
  for (std::size_t i = 0; i < expected.size(); ++i) {
    const double apart = static_cast<double>(found[i]) - expected[i];
    difference += apart * apart;
    norm += expected[i] * expected[i];
  }
  return std::sqrt(difference / norm);
}

}  // namespace modalkv
