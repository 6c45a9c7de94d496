#include "tools/report/metrics.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <numeric>

#include "tests/tools/report/made_report.hpp"

namespace modalkv {
namespace {

using namespace made_report;

TEST(Metrics, LatenciesOfARequestAreThoseOfVllmBench) {
  // First token after 200 ms, then 10 gaps of 40 ms.
  const RequestLatency latency = latency_of(completed(1000, 200, 40, 11));
  EXPECT_DOUBLE_EQ(latency.ttft_ms, 200);
  EXPECT_DOUBLE_EQ(latency.tpot_ms.value(), 40);
  EXPECT_DOUBLE_EQ(latency.e2el_ms, 600);
  const RequestLatency single = latency_of(completed(1000, 200, 40, 1));
  EXPECT_FALSE(single.tpot_ms.has_value());
  EXPECT_DOUBLE_EQ(single.e2el_ms, 200);
}

// Values of numpy.percentile([1, 2, 4, 8, 16], [0, 10, 25, 50, 90, 99, 100]).
TEST(Metrics, PercentilesInterpolateAsNumpyDoes) {
  const std::vector<double> values{1, 2, 4, 8, 16};
  EXPECT_DOUBLE_EQ(percentile(values, 0), 1);
  EXPECT_DOUBLE_EQ(percentile(values, 10), 1.4);
  EXPECT_DOUBLE_EQ(percentile(values, 25), 2);
  EXPECT_DOUBLE_EQ(percentile(values, 50), 4);
  EXPECT_DOUBLE_EQ(percentile(values, 90), 12.8);
  EXPECT_NEAR(percentile(values, 99), 15.68, 1e-12);
  EXPECT_DOUBLE_EQ(percentile(values, 100), 16);
  EXPECT_DOUBLE_EQ(percentile({5}, 99), 5);
  EXPECT_DOUBLE_EQ(percentile({}, 50), 0);
}

TEST(Metrics, SummaryIsMeanPopulationDeviationAndPercentiles) {
  const LatencySummary summary = summarize({2, 4, 4, 4, 5, 5, 7, 9});
  EXPECT_DOUBLE_EQ(summary.mean, 5);
  EXPECT_DOUBLE_EQ(summary.standard_deviation, 2);
  EXPECT_DOUBLE_EQ(summary.percentiles[0], 4.5);
  EXPECT_EQ(summarize({}).mean, 0);
}

TEST(Metrics, CountOnlyWhatCompleted) {
  ReplayResult made =
      result("p",
             {completed(0, 100, 10, 11, 300), completed(0, 300, 10, 1, 400),
              refused(RequestState::beyond_context, 0, 9000),
              refused(RequestState::too_large, 0, 800), refused(RequestState::too_large, 0, 900)},
             4);
  made.itl_ns.add(10 * kMillisecond, 10);
  const Metrics metrics = metrics_of(made, {});
  EXPECT_EQ(metrics.completed, 2);
  EXPECT_EQ(metrics.beyond_context, 1);
  EXPECT_EQ(metrics.too_large, 2);
  EXPECT_EQ(metrics.input_tokens, 700);
  EXPECT_EQ(metrics.output_tokens, 12);
  EXPECT_DOUBLE_EQ(metrics.ttft.mean, 200);
  EXPECT_DOUBLE_EQ(metrics.e2el.mean, 250);
  EXPECT_DOUBLE_EQ(metrics.tpot.mean, 10) << "a request of one token has no TPOT";
  EXPECT_EQ(metrics.tpot_ms.size(), 1u);
  EXPECT_DOUBLE_EQ(metrics.itl.mean, 10);
  EXPECT_DOUBLE_EQ(metrics.per_second(static_cast<double>(metrics.output_tokens)), 3);
  EXPECT_EQ(Metrics{}.per_second(5), 0);
}

TEST(Metrics, GoodRequestsMeetEveryObjectiveThatIsSet) {
  const RequestLatency latency{.ttft_ms = 200, .tpot_ms = 40, .e2el_ms = 600};
  EXPECT_TRUE(meets({}, latency));
  EXPECT_TRUE(meets({.ttft_ms = 200.0, .tpot_ms = 40.0, .e2el_ms = 600.0}, latency));
  EXPECT_FALSE(meets({.ttft_ms = 199.0, .tpot_ms = {}, .e2el_ms = {}}, latency));
  EXPECT_FALSE(meets({.ttft_ms = {}, .tpot_ms = 39.0, .e2el_ms = {}}, latency));
  EXPECT_FALSE(meets({.ttft_ms = {}, .tpot_ms = {}, .e2el_ms = 599.0}, latency));
  EXPECT_TRUE(meets({.ttft_ms = {}, .tpot_ms = 1.0, .e2el_ms = {}},
                    {.ttft_ms = 1, .tpot_ms = {}, .e2el_ms = 1}));
  EXPECT_EQ(report().runs[0].metrics.good,
            0);  // the 200 ms one decodes at 40 ms, others start late
  EXPECT_EQ(report().runs[1].metrics.good, 3);
}

TEST(Metrics, PoliciesAreComparedOverWhatAllCompleted) {
  const ReplayResult all = result(
      "a", {completed(0, 100, 10, 11), completed(0, 900, 90, 11), completed(0, 300, 30, 1)}, 1);
  const ReplayResult some = result(
      "b",
      {completed(0, 50, 5, 11), refused(RequestState::too_large, 0, 9), completed(0, 50, 5, 1)}, 1);
  const CommonRequests common = compare({&all, &some});
  EXPECT_EQ(common.count, 2);
  EXPECT_DOUBLE_EQ(common.means[0].ttft_ms, 200);
  EXPECT_DOUBLE_EQ(common.means[0].tpot_ms, 10);
  EXPECT_DOUBLE_EQ(common.means[1].ttft_ms, 50);
  EXPECT_DOUBLE_EQ(common.means[1].tpot_ms, 5);
}

TEST(Metrics, GainsAreTimesShorterThanTheBaselineOfTheSameRate) {
  Report made = report();
  ASSERT_TRUE(made.runs[1].over_stream.has_value());
  EXPECT_DOUBLE_EQ(made.runs[1].over_stream->ttft, 2);
  EXPECT_DOUBLE_EQ(made.runs[1].over_stream->tpot, 4);
  EXPECT_DOUBLE_EQ(made.runs[0].over_stream->ttft, 1);
  EXPECT_FALSE(made.runs[1].over_offload.has_value());
  EXPECT_EQ(made.common_requests, (std::vector<std::int64_t>{3, 3}));
  made.runs[1].result.rate_scale = 2;
  complete(made);
  EXPECT_FALSE(made.runs[1].over_stream.has_value());
}

}  // namespace
}  // namespace modalkv
