#include "tools/bench/time_statistics.hpp"

#include <gtest/gtest.h>

#include <vector>

namespace modalkv {
namespace {

TEST(TimeStatistics, MedianIsTheMiddleOrHalfWayBetweenTheTwo) {
  EXPECT_DOUBLE_EQ(median_of(std::vector{7.0}), 7);
  EXPECT_DOUBLE_EQ(median_of(std::vector{9.0, 1.0, 5.0}), 5);
  EXPECT_DOUBLE_EQ(median_of(std::vector{4.0, 1.0, 9.0, 2.0}), 3);
}

TEST(TimeStatistics, QuantilesByHand) {
  // Ranks 0 to 10: the tenth part of the way is rank 1.
  const std::vector<double> eleven{110, 10, 20, 30, 40, 50, 60, 70, 80, 90, 100};
  EXPECT_DOUBLE_EQ(quantile_of(eleven, 0), 10);
  EXPECT_DOUBLE_EQ(quantile_of(eleven, 0.1), 20);
  EXPECT_DOUBLE_EQ(quantile_of(eleven, 0.9), 100);
  EXPECT_DOUBLE_EQ(quantile_of(eleven, 1), 110);
  // Ranks 0 to 4: 0.1 is 0.4 of the way from the first to the second.
  const std::vector<double> five{5, 1, 2, 3, 4};
  EXPECT_DOUBLE_EQ(quantile_of(five, 0.1), 1.4);
  EXPECT_DOUBLE_EQ(quantile_of(five, 0.9), 4.6);
}

TEST(TimeStatistics, OneSlowRunMovesTheSpreadButNotTheMedian) {
  const TimeSpread spread = time_spread(std::vector{2.0, 2.0, 1.0, 2.0, 1000.0});
  EXPECT_DOUBLE_EQ(spread.median, 2);
  EXPECT_DOUBLE_EQ(spread.min, 1);
  EXPECT_DOUBLE_EQ(spread.p10, 1.4);
  EXPECT_DOUBLE_EQ(spread.p90, 2 + 0.6 * 998);
}

TEST(TimeStatisticsDeathTest, NothingHasNoMedian) {
  EXPECT_DEATH(median_of({}), "");
  EXPECT_DEATH(quantile_of(std::vector{1.0}, 1.5), "");
}

}  // namespace
}  // namespace modalkv
