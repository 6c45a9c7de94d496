// The published files themselves, where they are at hand.
#include <gtest/gtest.h>

#include <filesystem>

#include "tests/tools/trace/trace_text.hpp"
#include "tools/trace/generator.hpp"
#include "tools/trace/trace_stats.hpp"
#include "tools/trace/trace_writer.hpp"

namespace modalkv {
namespace {

namespace fs = std::filesystem;

class PublishedTraces : public testing::Test {
 protected:
  void SetUp() override {
    if (!fs::is_directory(folder_)) GTEST_SKIP() << "no published traces in " << folder_;
  }
  Trace read(const char* file) const { return read_trace(folder_ / file, {}); }

  const fs::path folder_ = fs::path(MODALKV_SOURCE_DIR) / "../shared/data/traces";
};

void expect_round_trip(const Trace& trace) {
  const Trace again = parsed(to_json_lines(trace));
  EXPECT_EQ(again.requests, trace.requests);
  EXPECT_EQ(again.segments, trace.segments);
}

TEST_F(PublishedTraces, AzureConversations) {
  const Trace trace = read("azure_llm_2023_conv.csv");
  EXPECT_EQ(trace.format, "azure-llm");
  ASSERT_EQ(trace.requests.size(), 19'366u);
  EXPECT_EQ(trace.requests[0].prompt_tokens, 374);
  EXPECT_EQ(trace.requests[1].arrival_ns, 4'314'579'000);
  const TraceStats stats = trace_stats(trace);
  EXPECT_NEAR(stats.prompt_tokens.mean, 1154.7, 0.1);
  EXPECT_NEAR(stats.output_tokens.mean, 211.1, 0.1);
  EXPECT_EQ(stats.prompt_tokens.quantiles.back(), 14'050);
  EXPECT_EQ(stats.requests_with_images, 0);
  expect_round_trip(trace);
}

TEST_F(PublishedTraces, AzureCode) {
  EXPECT_EQ(read("azure_llm_2023_code.csv").requests.size(), 8'819u);
}

TEST_F(PublishedTraces, MooncakeConversations) {
  const Trace trace = read("mooncake_conversation.jsonl");
  EXPECT_EQ(trace.format, "mooncake");
  ASSERT_EQ(trace.requests.size(), 12'031u);
  EXPECT_EQ(trace.requests[0].prompt_tokens, 6758);
  EXPECT_EQ(trace.requests[0].segment_count, 14u);
  EXPECT_EQ(trace.requests.back().arrival_ns, 3'536'999 * kMillisecond);
  EXPECT_GT(trace_stats(trace).reusable_share, 0.3);
  expect_round_trip(trace);
}

TEST_F(PublishedTraces, ServegenAndWhatTheGeneratorMakesOfIt) {
  const Trace trace = read("servegen_mm_image_1h.jsonl");
  EXPECT_EQ(trace.format, "servegen");
  ASSERT_EQ(trace.requests.size(), 34'846u);
  EXPECT_EQ(trace.requests.back().arrival_ns, 3'599'563 * kMillisecond);
  expect_round_trip(trace);

  const TraceStats real = trace_stats(trace);
  for (const Workload& workload : workloads()) {
    if (workload.name != "servegen") continue;
    const TraceStats made = trace_stats(generate_trace(workload, {.requests = 50'000}));
    EXPECT_NEAR(made.requests_with_images, real.requests_with_images, 0.005);
    EXPECT_NEAR(made.images.mean, real.images.mean, 0.1 * real.images.mean);
    for (const auto member :
         {&TraceStats::text_tokens, &TraceStats::image_tokens, &TraceStats::output_tokens}) {
      EXPECT_NEAR((made.*member).mean, (real.*member).mean, 0.06 * (real.*member).mean);
      for (const std::size_t q : {2u, 3u})
        EXPECT_NEAR((made.*member).quantiles[q], (real.*member).quantiles[q],
                    0.05 * (real.*member).quantiles[q]);
    }
  }
}

}  // namespace
}  // namespace modalkv
