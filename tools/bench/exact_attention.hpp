// Attention of one query in double precision, naive on purpose: the measure of what was timed.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

namespace modalkv {

class ExactAttention {
 public:
  /// Logits are `scale` times the dot product with `query` [head_dim].
  ExactAttention(std::vector<double> query, double scale);

  /// `value` must outlive the call of output().
  void add(std::span<const float> key, std::span<const float> value);

  /// [head_dim]; at least one token was added.
  std::vector<double> output() const;

 private:
  std::vector<double> query_;
  double scale_;
  std::vector<double> logits_;
  std::vector<std::span<const float>> values_;
};

/// Of `found` against `expected`: the norm of the difference by the norm of what is expected.
double relative_l2_error(std::span<const float> found, std::span<const double> expected);

}  // namespace modalkv
