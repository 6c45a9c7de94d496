#include "kernels/key_bias.hpp"

#include <cmath>

namespace modalkv {

void fill_rope_frequencies(double base, std::span<float> frequencies) {
  const auto pairs = static_cast<double>(frequencies.size());
  for (std::size_t i = 0; i < frequencies.size(); ++i)
    frequencies[i] = static_cast<float>(std::pow(base, -static_cast<double>(i) / pairs));
}

void rotated_bias(const KeyBias& bias, int kv_head, const std::int32_t* position,
                  std::span<float> to) {
  const float* b = bias.of_head(kv_head);
  const int half = bias.head_dim / 2;
  for (int i = 0; i < half; ++i) {
    const Rotation turn = bias.turn(position, i);
    to[static_cast<std::size_t>(i)] = b[i] * turn.cosine - b[i + half] * turn.sine;
    to[static_cast<std::size_t>(i + half)] = b[i + half] * turn.cosine + b[i] * turn.sine;
  }
}

void bias_terms(const KeyBias& bias, int kv_head, std::span<const float> query,
                std::span<float> cosine_terms, std::span<float> sine_terms) {
  const float* b = bias.of_head(kv_head);
  const auto half = static_cast<std::size_t>(bias.head_dim / 2);
  for (std::size_t i = 0; i < half; ++i) {
    cosine_terms[i] = query[i] * b[i] + query[i + half] * b[i + half];
    sine_terms[i] = query[i + half] * b[i] - query[i] * b[i + half];
  }
}

float bias_logit(const KeyBias& bias, std::span<const float> cosine_terms,
                 std::span<const float> sine_terms, const std::int32_t* position) {
  float sum = 0;
  for (int i = 0; i < bias.head_dim / 2; ++i) {
    const Rotation turn = bias.turn(position, i);
    const auto at = static_cast<std::size_t>(i);
    sum += cosine_terms[at] * turn.cosine + sine_terms[at] * turn.sine;
  }
  return sum;
}

}  // namespace modalkv
