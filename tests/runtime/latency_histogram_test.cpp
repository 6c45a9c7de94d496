#include "runtime/latency_histogram.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>
#include <vector>

namespace modalkv {
namespace {

// Half a bucket: 1/128 of an octave's lower end, and a nanosecond of the value itself.
constexpr double kRelativeError = 1.0 / 128;

// Durations spread over `decades` powers of ten.
std::vector<Nanos> durations(std::uint64_t seed, int decades, int count) {
  std::mt19937_64 bits(seed);
  std::vector<Nanos> values;
  for (int i = 0; i < count; ++i) {
    const double unit = static_cast<double>(bits() >> 11) * 0x1p-53;
    values.push_back(static_cast<Nanos>(std::pow(10, unit * decades)));
  }
  return values;
}

TEST(LatencyHistogram, QuantilesAgreeWithTheSortedValues) {
  for (std::uint64_t seed = 1; seed <= 20; ++seed) {
    SCOPED_TRACE(seed);
    std::vector<Nanos> values = durations(seed, 1 + static_cast<int>(seed % 12), 3001);
    LatencyHistogram histogram;
    for (const Nanos value : values) histogram.add(value);
    std::sort(values.begin(), values.end());
    for (const double quantile : {0.0, 0.01, 0.25, 0.5, 0.9, 0.95, 0.99, 1.0}) {
      const auto rank = static_cast<std::size_t>(quantile * 3000);
      const auto exact = static_cast<double>(values[rank]);
      EXPECT_NEAR(histogram.quantile_ns(quantile), exact, kRelativeError * exact + 1e-9)
          << "quantile " << quantile;
    }
  }
}

TEST(LatencyHistogram, MeanAndDeviationAreExact) {
  const std::vector<Nanos> values = durations(4, 10, 5000);
  LatencyHistogram histogram;
  long double sum = 0, squares = 0;
  for (const Nanos value : values) {
    histogram.add(value);
    sum += static_cast<long double>(value);
  }
  const long double mean = sum / 5000;
  for (const Nanos value : values)
    squares += (static_cast<long double>(value) - mean) * (static_cast<long double>(value) - mean);
  const auto deviation = static_cast<double>(std::sqrt(squares / 5000));
  EXPECT_EQ(histogram.count(), 5000);
  EXPECT_NEAR(histogram.mean_ns() / static_cast<double>(mean), 1, 1e-12);
  EXPECT_NEAR(histogram.standard_deviation_ns() / deviation, 1, 1e-9);
}

TEST(LatencyHistogram, CountsAddLikeSingleValues) {
  LatencyHistogram together, single;
  together.add(1'000'000, 3);
  together.add(5'000'000, 2);
  for (const Nanos value : {1'000'000, 5'000'000, 1'000'000, 1'000'000, 5'000'000})
    single.add(value);
  EXPECT_EQ(together.count(), 5);
  EXPECT_DOUBLE_EQ(together.mean_ns(), 2'600'000);
  EXPECT_DOUBLE_EQ(single.mean_ns(), 2'600'000);
  for (const double quantile : {0.0, 0.5, 0.6, 0.75, 1.0})
    EXPECT_EQ(together.quantile_ns(quantile), single.quantile_ns(quantile));
}

TEST(LatencyHistogram, SmallDurationsAreExact) {
  for (Nanos value = 0; value < 64; ++value) {
    LatencyHistogram histogram;
    histogram.add(value);
    EXPECT_EQ(histogram.quantile_ns(0.5), static_cast<double>(value));
  }
}

TEST(LatencyHistogram, HoldsTheLongestDuration) {
  LatencyHistogram histogram;
  histogram.add(INT64_MAX);
  EXPECT_NEAR(histogram.quantile_ns(1) / static_cast<double>(INT64_MAX), 1, kRelativeError);
}

TEST(LatencyHistogram, IsZeroWhereEmpty) {
  const LatencyHistogram histogram;
  EXPECT_EQ(histogram.quantile_ns(0.5), 0);
  EXPECT_EQ(histogram.mean_ns(), 0);
  EXPECT_EQ(histogram.standard_deviation_ns(), 0);
}

}  // namespace
}  // namespace modalkv
