#include "tools/trace/trace_writer.hpp"

#include <gtest/gtest.h>

#include "tests/tools/trace/trace_text.hpp"
#include "tools/trace/content_id.hpp"
#include "tools/trace/generator.hpp"

namespace modalkv {
namespace {

void expect_round_trip(const Trace& trace) {
  const Trace again = parsed(to_json_lines(trace));
  EXPECT_EQ(again.requests, trace.requests);
  EXPECT_EQ(again.segments, trace.segments);
}

TEST(TraceWriter, WritesWhatTheFormatSays) {
  Trace trace;
  trace.segments = {
      {.token_class = TokenClass::image, .tokens = 576, .content = content_id(5)},
      {.token_class = TokenClass::text, .tokens = 24},
      {.token_class = TokenClass::text, .tokens = 3, .content = content_id("greeting")}};
  trace.requests = {{.arrival_ns = 1'500'000,
                     .prompt_tokens = 600,
                     .visual_tokens = 576,
                     .output_tokens = 7,
                     .images = 1,
                     .first_segment = 0,
                     .segment_count = 2},
                    {.arrival_ns = 2'000'001,
                     .prompt_tokens = 3,
                     .output_tokens = 1,
                     .first_segment = 2,
                     .segment_count = 1}};
  EXPECT_EQ(to_json_lines(trace),
            R"({"timestamp": 1.5, "input_length": 600, "output_length": 7, "image_tokens": [576],)"
            R"( "image_ids": [5]})"
            "\n"
            R"({"timestamp": 2.000001, "input_length": 3, "output_length": 1, "hash_ids": [)" +
                content_id_json(content_id("greeting")) + "]}\n");
  expect_round_trip(trace);
}

TEST(TraceWriter, EveryFormatReadsBackEqual) {
  for (const char* text :
       {"TIMESTAMP,ContextTokens,GeneratedTokens\n"
        "2023-11-16 18:15:46.6805900,374,44\n2023-11-16 18:15:50.9951690,396,109\n",
        "TIMESTAMP,NumImages,ContextTokens,GeneratedTokens\n"
        "2025-03-04 00:00:00.1234567,0,374,44\n2025-03-04 00:00:01,9,5374,44\n",
        R"({"timestamp": 0, "input_length": 700, "output_length": 5, "hash_ids": [0, "b"]})",
        R"({"timestamp": 0.3, "text_length": 0, "image_tokens": [4], "input_length": 4,)"
        R"( "output_length": 2})",
        R"({"timestamp": 0.3, "input_length": 9, "output_length": 2, "image_tokens": [4, 4],)"
        R"( "image_ids": ["a", 9223372036854775807], "hash_ids": ["c"]})"})
    expect_round_trip(parsed(text));
}

TEST(TraceWriter, TimesKeepTheirNanosecondsForAYear) {
  Trace trace = parsed(R"({"timestamp": 0, "input_length": 1, "output_length": 1})");
  for (const Nanos arrival_ns :
       {Nanos{1}, Nanos{999'999}, Nanos{1'000'000}, Nanos{4'790'014'811'383'001},
        Nanos{19'067'122'852'432'007}, Nanos{31'622'399'999'999'999}}) {
    trace.requests[0].arrival_ns = arrival_ns;
    EXPECT_EQ(parsed(to_json_lines(trace)).requests[0].arrival_ns, arrival_ns);
  }
}

TEST(TraceWriter, GeneratedTracesReadBackEqual) {
  for (const Workload& workload : workloads())
    for (const std::int64_t pool : {0, 20})
      expect_round_trip(generate_trace(workload, {.requests = 300, .image_pool = pool}));
}

TEST(TraceWriter, TextBeforeAnImageIsAnErrorThatNamesTheRequest) {
  Trace trace =
      parsed(R"({"timestamp": 0, "input_length": 9, "output_length": 2, "image_tokens": [4]})");
  std::swap(trace.segments[0], trace.segments[1]);
  try {
    to_json_lines(trace);
    FAIL() << "no error";
  } catch (const Error& error) {
    EXPECT_EQ(std::string(error.what()),
              "t.log: request 0 has text before an image, which this format cannot say");
  }
}

}  // namespace
}  // namespace modalkv
