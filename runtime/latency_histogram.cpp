#include "runtime/latency_histogram.hpp"

#include <algorithm>
#include <bit>
#include <cmath>

namespace modalkv {
namespace {

constexpr int kSubBuckets = 64;  // per octave
constexpr int kSubBits = 6;

// Durations below 64 ns have a bucket each; above, the octave and the six bits under its leading
// one.
std::size_t bucket_of(Nanos duration_ns) {
  const auto value = static_cast<std::uint64_t>(duration_ns);
  if (value < kSubBuckets) return static_cast<std::size_t>(value);
  const int shift = static_cast<int>(std::bit_width(value)) - 1 - kSubBits;
  return static_cast<std::size_t>((shift + 1) * kSubBuckets) + ((value >> shift) - kSubBuckets);
}

double bucket_middle(std::size_t bucket) {
  if (bucket < kSubBuckets) return static_cast<double>(bucket);
  const auto shift = static_cast<int>(bucket / kSubBuckets) - 1;
  const auto low = static_cast<double>(bucket % kSubBuckets + kSubBuckets);
  return std::ldexp(low + 0.5, shift);
}

}  // namespace

LatencyHistogram::LatencyHistogram() : buckets_(bucket_of(INT64_MAX) + 1) {}

void LatencyHistogram::add(Nanos duration_ns, std::int64_t count) {
  buckets_[bucket_of(duration_ns)] += count;
  const auto value = static_cast<double>(duration_ns);
  const auto weight = static_cast<double>(count);
  count_ += count;
  sum_ += weight * value;
  sum_of_squares_ += weight * value * value;
}

double LatencyHistogram::mean_ns() const {
  return count_ == 0 ? 0 : sum_ / static_cast<double>(count_);
}

double LatencyHistogram::standard_deviation_ns() const {
  if (count_ == 0) return 0;
  const double mean = mean_ns();
  return std::sqrt(std::max(0.0, sum_of_squares_ / static_cast<double>(count_) - mean * mean));
}

double LatencyHistogram::quantile_ns(double quantile) const {
  if (count_ == 0) return 0;
  const double rank = quantile * static_cast<double>(count_ - 1);
  std::int64_t below = 0;
  for (std::size_t i = 0; i < buckets_.size(); ++i) {
    below += buckets_[i];
    if (static_cast<double>(below) > rank) return bucket_middle(i);
  }
  return bucket_middle(buckets_.size() - 1);
}

}  // namespace modalkv
