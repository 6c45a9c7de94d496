#include <fmt/format.h>
#include <gtest/gtest.h>

#include "tests/tools/trace/trace_text.hpp"

namespace modalkv {
namespace {

constexpr std::string_view kLlm = "TIMESTAMP,ContextTokens,GeneratedTokens\n";
constexpr std::string_view kLmm = "TIMESTAMP,NumImages,ContextTokens,GeneratedTokens\n";

std::string llm(std::string_view rows) {
  return std::string(kLlm).append(rows);
}
std::string lmm(std::string_view rows) {
  return std::string(kLmm).append(rows);
}

TEST(AzureCsv, ReadsTextRequestsRelativeToTheFirst) {
  const Trace trace =
      parsed(llm("2023-11-16 18:15:46.6805900,374,44\n"
                 "2023-11-16 18:15:50.9951690,396,109\n"));
  EXPECT_EQ(trace.format, "azure-llm");
  EXPECT_EQ(trace.name, "t.log");
  EXPECT_EQ(trace.skipped_rows, 0);
  ASSERT_EQ(trace.requests.size(), 2u);
  EXPECT_EQ(trace.requests[0], (Request{.arrival_ns = 0,
                                        .prompt_tokens = 374,
                                        .output_tokens = 44,
                                        .first_segment = 0,
                                        .segment_count = 1}));
  EXPECT_EQ(trace.requests[1], (Request{.arrival_ns = 4'314'579'000,
                                        .prompt_tokens = 396,
                                        .output_tokens = 109,
                                        .first_segment = 1,
                                        .segment_count = 1}));
  EXPECT_EQ(trace.segments_of(trace.requests[1])[0],
            (Segment{.token_class = TokenClass::text, .tokens = 396}));
}

TEST(AzureCsv, ReadsImagesBeforeTextAndTakesTheRootOfTheirNumber) {
  const Trace trace =
      parsed(lmm("2025-03-04 00:00:00,0,100,1\n"
                 "2025-03-04 00:00:00.5,4,2000,7\n"));
  EXPECT_EQ(trace.format, "azure-lmm");
  ASSERT_EQ(trace.requests.size(), 2u);
  EXPECT_EQ(trace.requests[0].images, 0);
  EXPECT_EQ(trace.requests[1], (Request{.arrival_ns = 500'000'000,
                                        .prompt_tokens = 2000,
                                        .visual_tokens = 2 * 576,
                                        .output_tokens = 7,
                                        .images = 2,
                                        .first_segment = 1,
                                        .segment_count = 3}));
  const auto segments = trace.segments_of(trace.requests[1]);
  const Segment image{.token_class = TokenClass::image, .tokens = 576};
  EXPECT_EQ(segments[0], image);
  EXPECT_EQ(segments[1], image);
  EXPECT_EQ(segments[2], (Segment{.token_class = TokenClass::text, .tokens = 848}));
}

TEST(AzureCsv, TakesTheNumberOfImagesAsItIsWhenToldSo) {
  const std::string text = lmm("2025-03-04 00:00:00,3,2000,7\n");
  EXPECT_EQ(parsed(text, {.images_squared = false}).requests[0].images, 3);
  EXPECT_NE(error_of(text).find("t.log:2: field 'NumImages': found 3, expected a square"),
            std::string::npos)
      << error_of(text);
}

TEST(AzureCsv, ImagesNeverLeaveAPromptWithoutText) {
  const Trace trace = parsed(lmm("2025-03-04 00:00:00,9,999,7\n"));
  EXPECT_EQ(trace.requests[0].visual_tokens, 3 * 332);
  EXPECT_EQ(trace.requests[0].prompt_tokens, 999);
  EXPECT_EQ(parsed(lmm("2025-03-04 00:00:00,9,1000,7\n"), {.azure_image_tokens = 100})
                .requests[0]
                .visual_tokens,
            300);
  EXPECT_NE(error_of(lmm("2025-03-04 00:00:00,9,3,7\n")).find("fewer images than context tokens"),
            std::string::npos);
}

TEST(AzureCsv, CountsTimeAcrossMonthsAndLeapDays) {
  const auto second_arrival_s = [](std::string_view rows) {
    return parsed(llm(rows)).requests.at(1).arrival_ns / kSecond;
  };
  EXPECT_EQ(second_arrival_s("2024-02-28 23:59:59,1,1\n2024-03-01 00:00:00,1,1\n"), 86'401);
  EXPECT_EQ(second_arrival_s("2023-02-28 23:59:59,1,1\n2023-03-01 00:00:00,1,1\n"), 1);
  EXPECT_EQ(second_arrival_s("2023-12-31 23:00:00+00:00,1,1\n2024-01-01 00:00:00,1,1\n"), 3600);
  EXPECT_EQ(parsed(llm("2023-01-01 00:00:00.999999999,1,1\n2023-01-01 00:00:01,1,1\n"))
                .requests[1]
                .arrival_ns,
            1);
}

TEST(AzureCsv, NamesTheFieldThatIsWrong) {
  const auto error = [](std::string_view row) { return error_of(llm(row)); };
  EXPECT_EQ(error("2023-11-16 18:15:46,374\n"),
            "t.log:2: field 'row': found 2 columns, expected 3");
  EXPECT_EQ(error("2023-11-16 18:15:46,-1,44\n"),
            "t.log:2: field 'ContextTokens': found -1, expected a whole number from 1 to 10000000");
  EXPECT_EQ(
      error("2023-11-16 18:15:46,374,0\n"),
      "t.log:2: field 'GeneratedTokens': found 0, expected a whole number from 1 to 10000000");
  for (const char* count : {"10000001", "99999999999999999999", "NaN", "", "1.5", " 7", "7 "})
    EXPECT_TRUE(error(fmt::format("2023-11-16 18:15:46,{},4\n", count))
                    .starts_with("t.log:2: field 'ContextTokens': found "))
        << count;
  for (const char* time :
       {"", "yesterday", "2023-13-16 18:15:46", "2023-02-29 18:15:46", "2023-11-31 18:15:46",
        "2023-11-16T18:15:46", "2023-11-16 24:15:46", "2023-11-16 18:15:46.",
        "2023-11-16 18:15:46.1234567890", "2023-11-1a 18:15:46", "2023-11-16 18:15:46.1-",
        "1969-12-31 23:59:59", "-023-11-16 18:15:46"})
    EXPECT_TRUE(
        error(std::string(time) + ",1,1\n").starts_with("t.log:2: field 'TIMESTAMP': found "))
        << time;
}

TEST(AzureCsv, AHeaderOfAnotherFormatIsAnError) {
  EXPECT_EQ(error_of(lmm("2025-03-04 00:00:00,0,100,1\n"), {.format = TraceFormat::azure_llm}),
            "t.log:1: field 'header': expected TIMESTAMP,ContextTokens,GeneratedTokens");
}

}  // namespace
}  // namespace modalkv
