#include <fmt/format.h>
#include <gtest/gtest.h>

#include "tests/tools/trace/trace_text.hpp"
#include "tools/trace/content_id.hpp"

namespace modalkv {
namespace {

Segment text(Tokens tokens, ContentId content = {}) {
  return {.token_class = TokenClass::text, .tokens = tokens, .content = content};
}
Segment image(Tokens tokens, ContentId content = {}) {
  return {.token_class = TokenClass::image, .tokens = tokens, .content = content};
}

TEST(MooncakeRow, ReadsChainedBlocksOfTextAndPassesOverForeignKeys) {
  const Trace trace = parsed(
      R"({"timestamp": 0, "input_length": 1030, "output_length": 5, "hash_ids": [0, 7, "tail"]})"
      "\n"
      R"({"x": [{"y": null}, -1.5e3, "\u00e9"], "timestamp": 27.5, "input_length": 512,)"
      R"( "output_length": 1, "hash_ids": [0]})"
      "\n");
  EXPECT_EQ(trace.format, "mooncake");
  ASSERT_EQ(trace.requests.size(), 2u);
  EXPECT_EQ(trace.requests[0], (Request{.arrival_ns = 0,
                                        .prompt_tokens = 1030,
                                        .output_tokens = 5,
                                        .first_segment = 0,
                                        .segment_count = 3}));
  EXPECT_EQ(trace.requests[1], (Request{.arrival_ns = 27'500'000,
                                        .prompt_tokens = 512,
                                        .output_tokens = 1,
                                        .first_segment = 3,
                                        .segment_count = 1}));
  const std::vector<Segment> expected{text(512, content_id(0)), text(512, content_id(7)),
                                      text(6, content_id("tail")), text(512, content_id(0))};
  EXPECT_EQ(trace.segments, expected);
}

TEST(MooncakeRow, WantsOneIdForEachBlockOf512Tokens) {
  EXPECT_EQ(error_of(R"({"timestamp": 0, "input_length": 1025, "output_length": 5,)"
                     R"( "hash_ids": [0, 1]})"),
            "t.log:1: field 'hash_ids': found 2 blocks, expected 3 for 1025 tokens");
}

TEST(MooncakeRow, ImagesAreAnError) {
  const std::string error = error_of(R"({"timestamp": 0, "input_length": 5, "output_length": 5,)"
                                     R"( "image_tokens": [4], "image_ids": []})",
                                     {.format = TraceFormat::mooncake});
  EXPECT_TRUE(error.starts_with("t.log:1: field 'image_tokens': found images, ")) << error;
}

TEST(ServegenRow, ReadsImagesBeforeText) {
  const Trace trace =
      parsed(R"({"timestamp": 0.0, "client": 8, "text_length": 163, "image_tokens": [972, 4],)"
             R"( "input_length": 1139, "output_length": 2})"
             "\n"
             R"({"timestamp": 3.25, "client": 1, "text_length": 0, "image_tokens": [6],)"
             R"( "input_length": 6, "output_length": 7})"
             "\n");
  EXPECT_EQ(trace.format, "servegen");
  ASSERT_EQ(trace.requests.size(), 2u);
  EXPECT_EQ(trace.requests[0], (Request{.arrival_ns = 0,
                                        .prompt_tokens = 1139,
                                        .visual_tokens = 976,
                                        .output_tokens = 2,
                                        .images = 2,
                                        .first_segment = 0,
                                        .segment_count = 3}));
  EXPECT_EQ(trace.requests[1], (Request{.arrival_ns = 3'250'000,
                                        .prompt_tokens = 6,
                                        .visual_tokens = 6,
                                        .output_tokens = 7,
                                        .images = 1,
                                        .first_segment = 3,
                                        .segment_count = 1}));
  EXPECT_EQ(trace.segments, (std::vector<Segment>{image(972), image(4), text(163), image(6)}));
}

TEST(ServegenRow, TheSumMustBeRight) {
  EXPECT_EQ(
      error_of(R"({"timestamp": 0, "text_length": 163, "image_tokens": [972],)"
               R"( "input_length": 1134, "output_length": 2})"),
      "t.log:1: field 'input_length': found 1134, expected text_length + image_tokens = 1135");
  EXPECT_EQ(error_of(R"({"timestamp": 0, "input_length": 1134, "output_length": 2})",
                     {.format = TraceFormat::servegen}),
            "t.log:1: field 'text_length': found nothing, expected the text tokens of the prompt");
}

TEST(ServegenRow, FewerIdsThanImagesAreAnError) {
  EXPECT_EQ(error_of(R"({"timestamp": 0, "text_length": 1, "image_tokens": [4, 5],)"
                     R"( "image_ids": [1], "input_length": 10, "output_length": 2})"),
            "t.log:1: field 'image_ids': found 1 ids, expected one for each of 2 images");
}

TEST(ModalkvRow, ReadsImagesTheirIdsAndTextBlocks) {
  const std::string hex(64, 'a');
  const Trace trace = parsed(
      R"({"timestamp": 1, "input_length": 610, "output_length": 2, "image_tokens": [576, 4],)"
      R"( "image_ids": ["cat", 3]})"
      "\n"
      R"({"timestamp": 1e3, "input_length": 513, "output_length": 9, "hash_ids": [")" +
      hex +
      R"(", 7]})"
      "\n"
      R"({"timestamp": 1000.000001, "input_length": 24, "output_length": 3})"
      "\n");
  EXPECT_EQ(trace.format, "modalkv");
  ASSERT_EQ(trace.requests.size(), 3u);
  EXPECT_EQ(trace.requests[0], (Request{.arrival_ns = 1'000'000,
                                        .prompt_tokens = 610,
                                        .visual_tokens = 580,
                                        .output_tokens = 2,
                                        .images = 2,
                                        .first_segment = 0,
                                        .segment_count = 3}));
  EXPECT_EQ(trace.requests[1], (Request{.arrival_ns = kSecond,
                                        .prompt_tokens = 513,
                                        .output_tokens = 9,
                                        .first_segment = 3,
                                        .segment_count = 2}));
  EXPECT_EQ(trace.requests[2], (Request{.arrival_ns = kSecond + 1,
                                        .prompt_tokens = 24,
                                        .output_tokens = 3,
                                        .first_segment = 5,
                                        .segment_count = 1}));
  const std::uint64_t word = 0xaaaaaaaaaaaaaaaau;
  const std::vector<Segment> expected{
      image(576, content_id("cat")),         image(4, content_id(3)), text(30),
      text(512, {{word, word, word, word}}), text(1, content_id(7)),  text(24)};
  EXPECT_EQ(trace.segments, expected);
}

TEST(ModalkvRow, ContradictionsAreErrors) {
  const auto error = [](std::string_view rest) {
    return error_of(R"({"timestamp": 0, "input_length": 9, "output_length": 1, )" +
                    std::string(rest) + "}");
  };
  EXPECT_EQ(error(R"("image_tokens": [4, 6])"),
            "t.log:1: field 'image_tokens': found 10 in all, expected at most input_length, 9");
  EXPECT_EQ(error(R"("image_tokens": [4], "image_ids": [1, 2])"),
            "t.log:1: field 'image_ids': found 2 ids, expected one for each of 1 images");
  EXPECT_EQ(error(R"("output_length": 1)"),
            "t.log:1: field 'output_length': found it twice, expected it once");
  EXPECT_EQ(error(R"("image_tokens": [], "image_tokens": [])"),
            "t.log:1: field 'image_tokens': found it twice, expected it once");
  EXPECT_TRUE(
      error(R"("colour": 1)").starts_with("t.log:1: field 'colour': found an unknown field"));
}

TEST(JsonRows, NameTheFieldThatIsMissingOrWrong) {
  const auto starts = [](std::string_view row, std::string_view start) {
    const std::string error = error_of(row, {.format = TraceFormat::modalkv});
    EXPECT_TRUE(error.starts_with(start)) << row << "\n" << error;
  };
  starts(R"({"input_length": 9, "output_length": 1})",
         "t.log:1: field 'timestamp': found nothing, expected milliseconds");
  starts(R"({"timestamp": 0, "output_length": 1})",
         "t.log:1: field 'input_length': found nothing, expected the prompt's tokens");
  starts(R"({"timestamp": 0, "input_length": 9})",
         "t.log:1: field 'output_length': found nothing, expected the output's tokens");
  for (const char* time : {"-1", "NaN", "Infinity", "1e400", "\"5\"", "null", "01", "1.", "+1"})
    starts(std::string(R"({"timestamp": )") + time + R"(, "input_length": 9, "output_length": 1})",
           "t.log:1: field 'timestamp': found ");
  for (const char* count :
       {"-1", "0", "10000001", "99999999999999999999", "1.5", "1e2", "NaN", "[1]"})
    starts(std::string(R"({"timestamp": 0, "output_length": 1, "input_length": )") + count + "}",
           "t.log:1: field 'input_length': found ");
  for (const char* images : {"4", "[0]", "[-1]", "[1,]", "[,1]", "[1 2]", "[\"a\"]", "[1"})
    starts(
        std::string(R"({"timestamp": 0, "input_length": 9, "output_length": 1, "image_tokens": )") +
            images + "}",
        "t.log:1: field 'image_tokens': found ");
}

TEST(JsonRows, ShowTheValueThatIsWrongWithoutWhatFollowsIt) {
  const auto found = [](std::string_view value) {
    return error_of(
        fmt::format(R"({{"timestamp": {}, "input_length": 9, "output_length": 1}})", value),
        {.format = TraceFormat::modalkv});
  };
  EXPECT_EQ(found("NaN"), "t.log:1: field 'timestamp': found NaN, expected a number");
  EXPECT_EQ(error_of(R"({"timestamp": 0, "input_length": 9, "output_length": -5})",
                     {.format = TraceFormat::modalkv}),
            "t.log:1: field 'output_length': found -5, expected a whole number from 1 to 10000000");
  EXPECT_TRUE(found(R"("a, b")").starts_with(R"(t.log:1: field 'timestamp': found "a, b")"));
}

TEST(JsonRows, TornRowsAndRubbishBehindARowAreErrors) {
  const std::string row = R"({"timestamp": 0, "input_length": 9, "output_length": 1})";
  ASSERT_EQ(error_of(row), "no error");
  for (std::size_t length = 1; length < row.size(); ++length) {
    const std::string error =
        error_of(row + "\n" + row.substr(0, length), {.format = TraceFormat::modalkv});
    EXPECT_TRUE(error.starts_with("t.log:2: field '")) << length << ": " << error;
  }
  EXPECT_EQ(error_of(row + "}"),
            "t.log:1: field 'row': found }, expected nothing after the object");
}

}  // namespace
}  // namespace modalkv
