// Random numbers that are the same on every platform: the standard's distributions are not.
#pragma once

#include <cmath>
#include <cstdint>
#include <numbers>
#include <vector>

#include "scheduler/split_mix.hpp"

namespace modalkv {

/// SplitMix64 (Steele, Lea, Flood 2014) and what traces draw from it.
class Random {
 public:
  explicit Random(std::uint64_t seed) : state_(seed) {}

  std::uint64_t bits() {
    state_ += 0x9e3779b97f4a7c15u;
    return split_mix(state_);
  }
  /// In [0, 1).
  double unit() { return static_cast<double>(bits() >> 11) * 0x1p-53; }

  double normal() {  // Box and Muller
    const double radius = std::sqrt(-2 * std::log(1 - unit()));
    return radius * std::cos(2 * std::numbers::pi * unit());
  }
  /// Gamma of mean 1 and coefficient of variation `cv` (Marsaglia and Tsang 2000); cv 1 is
  /// exponential.
  double gamma_of_mean_one(double cv) {
    if (cv == 0) return 1;
    const double shape = 1 / (cv * cv);
    const double boost = shape < 1 ? std::pow(1 - unit(), 1 / shape) : 1;
    const double d = (shape < 1 ? shape + 1 : shape) - 1.0 / 3, c = 1 / std::sqrt(9 * d);
    for (;;) {
      const double x = normal(), v = std::pow(1 + c * x, 3);
      if (v <= 0) continue;
      if (std::log(1 - unit()) < 0.5 * x * x + d - d * v + d * std::log(v))
        return boost * d * v / shape;
    }
  }

 private:
  std::uint64_t state_;
};

/// Draws 0, 1, 2 ... with weights 1, 2^-s, 3^-s ...
class Zipf {
 public:
  Zipf(std::size_t items, double exponent) : cumulative_(items) {
    double total = 0;
    for (std::size_t i = 0; i < items; ++i)
      cumulative_[i] = total += std::pow(static_cast<double>(i + 1), -exponent);
  }
  std::size_t draw(Random& random) const {
    const double at = random.unit() * cumulative_.back();
    std::size_t low = 0, high = cumulative_.size() - 1;
    while (low < high) {
      const std::size_t middle = (low + high) / 2;
      if (cumulative_[middle] > at) {
        high = middle;
      } else {
        low = middle + 1;
      }
    }
    return low;
  }

 private:
  std::vector<double> cumulative_;
};

}  // namespace modalkv
