#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "tests/tools/report/made_report.hpp"
#include "tools/report/report.hpp"

namespace modalkv {
namespace {

using namespace made_report;
using nlohmann::json;

TEST(SummaryJson, HasTheKeysOfVllmBench) {
  const json summary = json::parse(summary_json(report()));
  ASSERT_EQ(summary.at("policies").size(), 2u);
  for (const json& policy : summary.at("policies")) {
    for (const char* key :
         {"duration", "completed", "total_input_tokens", "total_output_tokens",
          "request_throughput", "request_goodput", "output_throughput", "total_token_throughput"})
      EXPECT_TRUE(policy.at(key).is_number()) << key;
    for (const char* name : {"ttft", "tpot", "itl", "e2el"})
      for (const char* kind : {"mean", "median", "std", "p50", "p90", "p95", "p99"}) {
        const std::string key = std::string(kind) + "_" + name + "_ms";
        EXPECT_TRUE(policy.at(key).is_number()) << key;
      }
  }
}

TEST(SummaryJson, SaysOfEachPolicyWhatItsOutcomesSay) {
  const json summary = json::parse(summary_json(report()));
  const json& stream = summary["policies"][0];
  const json& centric = summary["policies"][1];
  EXPECT_EQ(stream["policy"], "fp16-stream");
  EXPECT_EQ(centric["policy"], "text-centric");
  EXPECT_EQ(stream["digest"], "0000000000000abc");
  EXPECT_EQ(centric["digest"], "1234567890abcdef");
  EXPECT_EQ(stream["completed"], 3);
  EXPECT_EQ(stream["not_run"]["beyond_context"], 1);
  EXPECT_EQ(stream["not_run"]["too_large"], 0);
  EXPECT_EQ(stream["saturated"], true);
  EXPECT_EQ(centric["saturated"], false);
  EXPECT_DOUBLE_EQ(stream["mean_ttft_ms"], 400);
  EXPECT_DOUBLE_EQ(stream["median_ttft_ms"], 400);
  EXPECT_DOUBLE_EQ(stream["p99_ttft_ms"], 596);
  EXPECT_DOUBLE_EQ(stream["mean_tpot_ms"], 60);
  EXPECT_DOUBLE_EQ(centric["mean_tpot_ms"], 15);
  EXPECT_DOUBLE_EQ(stream["total_input_tokens"], 300);
  EXPECT_DOUBLE_EQ(stream["total_output_tokens"], 33);
  EXPECT_DOUBLE_EQ(stream["request_throughput"], 0.3);
  EXPECT_DOUBLE_EQ(stream["output_throughput"], 3.3);
  EXPECT_DOUBLE_EQ(stream["total_token_throughput"], 33.3);
  EXPECT_DOUBLE_EQ(centric["request_goodput"], 3.0 / 8);
  EXPECT_DOUBLE_EQ(centric["times_shorter_than_fp16_stream"]["tpot"], 4);
  EXPECT_TRUE(centric["times_shorter_than_fp16_offload"].is_null());
  EXPECT_EQ(centric["compared_requests"], 3);
  EXPECT_DOUBLE_EQ(centric["kv_bits_per_element"], 6.5);
}

TEST(SummaryJson, MedianIsNotTheMean) {
  Report made = report();
  made.runs[0].result.outcomes[2] = completed(200, 3000, 300, 2);
  complete(made);
  const json stream = json::parse(summary_json(made))["policies"][0];
  EXPECT_DOUBLE_EQ(stream["mean_ttft_ms"], 1200);  // of 200, 400, 3000
  EXPECT_DOUBLE_EQ(stream["median_ttft_ms"], 400);
  EXPECT_DOUBLE_EQ(stream["p50_ttft_ms"], 400);
  EXPECT_DOUBLE_EQ(stream["p90_ttft_ms"], 2480);
}

TEST(SummaryJson, SaysWhatWasRunAndThatItIsSimulated) {
  const json summary = json::parse(summary_json(report()));
  EXPECT_EQ(summary["simulated"], true);
  EXPECT_EQ(summary["quality"], "not measured");
  EXPECT_EQ(summary["command_line"], "modalkv simulate --trace <a&b>.jsonl");
  EXPECT_EQ(summary["seed"], 17);
  EXPECT_EQ(summary["trace"]["requests"], 4);
  EXPECT_EQ(summary["trace"]["skipped_rows"], 3);
  EXPECT_EQ(summary["slo"], (json{{"ttft_ms", 350.0}, {"tpot_ms", 25.0}}));
  EXPECT_EQ(summary["digest"].get<std::string>().size(), 16u);
}

TEST(SummaryJson, GoodputIsNullWithoutObjectives) {
  Report made = report();
  made.slo = {};
  complete(made);
  EXPECT_TRUE(json::parse(summary_json(made))["policies"][0]["request_goodput"].is_null());
}

TEST(SummaryJson, ARunThatCompletedNothingIsStillJson) {
  Report made = report();
  made.runs.resize(1);
  made.runs[0].result = result("fp16-resident", {refused(RequestState::too_large, 0, 9)}, 0);
  complete(made);
  const json policy = json::parse(summary_json(made))["policies"][0];
  EXPECT_EQ(policy["completed"], 0);
  EXPECT_EQ(policy["mean_ttft_ms"], 0);
  EXPECT_EQ(policy["output_throughput"], 0);
}

}  // namespace
}  // namespace modalkv
