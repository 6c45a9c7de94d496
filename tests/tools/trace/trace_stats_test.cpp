#include "tools/trace/trace_stats.hpp"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "tests/tools/trace/trace_text.hpp"

namespace modalkv {
namespace {

// Arrivals 1 s, 2 s, 5 s, so gaps of 1 s and 3 s. The third repeats the first one's two images and
// goes on with other text.
Trace three_requests() {
  return parsed(R"({"timestamp": 1000, "input_length": 1000, "output_length": 10,)"
                R"( "image_tokens": [300, 500], "image_ids": [1, 2]})"
                "\n"
                R"({"timestamp": 2000, "input_length": 5000, "output_length": 30})"
                "\n"
                R"({"timestamp": 5000, "input_length": 2000, "output_length": 20,)"
                R"( "image_tokens": [300, 500, 100], "image_ids": [1, 2, 3]})"
                "\n");
}

TEST(TraceStats, OfThreeRequestsByHand) {
  const TraceStats stats = trace_stats(three_requests());
  EXPECT_EQ(stats.requests, 3);
  EXPECT_DOUBLE_EQ(stats.duration_s, 4);
  EXPECT_DOUBLE_EQ(stats.rate_per_s, 0.5);
  EXPECT_DOUBLE_EQ(stats.arrival_cv, 0.5);  // deviation 1 s of a mean of 2 s
  EXPECT_DOUBLE_EQ(stats.requests_with_images, 2.0 / 3);
  EXPECT_DOUBLE_EQ(stats.visual_share, 1700.0 / 8000);
  EXPECT_DOUBLE_EQ(stats.reusable_share, 800.0 / 8000);
  EXPECT_NEAR(stats.prompt_tokens.mean, 8000.0 / 3, 1e-9);
  EXPECT_EQ(stats.prompt_tokens.quantiles.front(), 1000);
  EXPECT_EQ(stats.prompt_tokens.quantiles[2], 2000);
  EXPECT_EQ(stats.prompt_tokens.quantiles.back(), 5000);
  EXPECT_NEAR(stats.text_tokens.mean, 6300.0 / 3, 1e-9);
  EXPECT_EQ(stats.text_tokens.quantiles.front(), 200);
  EXPECT_NEAR(stats.output_tokens.mean, 20, 1e-9);
  EXPECT_EQ(stats.output_tokens.quantiles[2], 20);
  EXPECT_DOUBLE_EQ(stats.images.mean, 2.5);
  EXPECT_NEAR(stats.image_tokens.mean, 340, 1e-9);
  EXPECT_EQ(stats.image_tokens.quantiles[2], 300);
  EXPECT_EQ(stats.beyond[0].context, 4096);
  EXPECT_EQ(stats.beyond[0].requests, 1);
  EXPECT_EQ(stats.beyond[1].requests, 0);
}

TEST(TraceStats, APromptBeyondAContextCountsItsOutput) {
  const auto beyond_4096 = [](int output) {
    return trace_stats(parsed(R"({"timestamp": 0, "input_length": 4000, "output_length": )" +
                              std::to_string(output) + "}"))
        .beyond[0]
        .requests;
  };
  EXPECT_EQ(beyond_4096(96), 0);
  EXPECT_EQ(beyond_4096(97), 1);
}

TEST(TraceStats, ReuseEndsAtTheFirstDifference) {
  const auto reusable = [](std::string_view first, std::string_view second) {
    const auto row = [](int ms, std::string_view ids) {
      return R"({"timestamp": )" + std::to_string(ms) +
             R"(, "input_length": 1536, "output_length": 1, "hash_ids": )" + std::string(ids) +
             "}\n";
    };
    return trace_stats(parsed(row(0, first) + row(1, second))).reusable_share * 3072;
  };
  EXPECT_NEAR(reusable("[1, 2, 3]", "[1, 2, 3]"), 1536, 1e-9);
  EXPECT_NEAR(reusable("[1, 2, 3]", "[1, 2, 4]"), 1024, 1e-9);
  EXPECT_NEAR(reusable("[1, 2, 3]", "[1, 4, 3]"), 512, 1e-9);
  EXPECT_NEAR(reusable("[1, 2, 3]", "[4, 2, 3]"), 0, 1e-9);
}

TEST(TraceStats, EvenGapsHaveNoVariationWhereverTheTraceBegins) {
  for (const int start_ms : {0, 60'000}) {
    std::string text;
    for (int i = 0; i < 5; ++i)
      text += R"({"timestamp": )" + std::to_string(start_ms + 100 * i) +
              R"(, "input_length": 1, "output_length": 1})" + "\n";
    EXPECT_NEAR(trace_stats(parsed(text)).arrival_cv, 0, 1e-6) << start_ms;
  }
}

TEST(TraceStats, RequestsAtTheSameTimeAreGapsOfNought) {
  std::string text;
  for (const char* ms : {"0", "0", "2"})
    text += std::string(R"({"timestamp": )") + ms + R"(, "input_length": 1, "output_length": 1})" +
            "\n";
  EXPECT_DOUBLE_EQ(trace_stats(parsed(text)).arrival_cv, 1);
}

TEST(TraceStats, ASingleRequestHasNoRate) {
  const TraceStats stats =
      trace_stats(parsed(R"({"timestamp": 9, "input_length": 3, "output_length": 1})"));
  EXPECT_EQ(stats.rate_per_s, 0);
  EXPECT_EQ(stats.duration_s, 0);
  EXPECT_EQ(stats.arrival_cv, 0);
  EXPECT_EQ(stats.images.mean, 0);
}

TEST(TraceStats, JsonAndTableSayTheSame) {
  Trace trace = three_requests();
  trace.skipped_rows = 4;
  const TraceStats stats = trace_stats(trace);
  const auto json = nlohmann::json::parse(stats_json(trace, stats));
  EXPECT_EQ(json["name"], "t.log");
  EXPECT_EQ(json["format"], "modalkv");
  EXPECT_EQ(json["requests"], 3);
  EXPECT_EQ(json["skipped_rows"], 4);
  EXPECT_EQ(json["prompt_tokens"]["p50"], 2000);
  EXPECT_EQ(json["image_tokens"]["p100"], 500);
  EXPECT_DOUBLE_EQ(json["reusable_token_share"].get<double>(), 0.1);
  EXPECT_EQ(json["requests_beyond_context"]["4096"], 1);
  const std::string table = stats_table(trace, stats);
  for (const char* part : {"3 requests in 4.0 s, 0.50/s, CV of gaps 0.50", "4 bad rows",
                           "requests with images: 66.7 %; image tokens: 21.2 %", "before: 10.0 %"})
    EXPECT_NE(table.find(part), std::string::npos) << part << "\n" << table;
}

}  // namespace
}  // namespace modalkv
