#include "tools/trace/trace_reader.hpp"

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "tests/tools/trace/trace_text.hpp"

namespace modalkv {
namespace {

namespace fs = std::filesystem;

// Two requests, half a second apart, in each format.
struct Sample {
  std::string_view format, text;
};
constexpr Sample kSamples[]{
    {"azure-llm",
     "TIMESTAMP,ContextTokens,GeneratedTokens\n"
     "2023-11-16 18:15:46.25,600,44\n"
     "2023-11-16 18:15:46.75,20,9\n"},
    {"azure-lmm",
     "TIMESTAMP,NumImages,ContextTokens,GeneratedTokens\n"
     "2023-11-16 18:15:46.25,0,600,44\n"
     "2023-11-16 18:15:46.75,1,20,9\n"},
    {"mooncake", R"({"timestamp": 0, "input_length": 600, "output_length": 44, "hash_ids": [1, 2]})"
                 "\n"
                 R"({"timestamp": 500, "input_length": 20, "output_length": 9, "hash_ids": [3]})"
                 "\n"},
    {"servegen",
     R"({"timestamp": 0, "text_length": 100, "image_tokens": [500], "input_length": 600,)"
     R"( "output_length": 44})"
     "\n"
     R"({"timestamp": 500, "text_length": 20, "image_tokens": [], "input_length": 20,)"
     R"( "output_length": 9})"
     "\n"},
    {"modalkv",
     R"({"timestamp": 0, "input_length": 600, "output_length": 44})"
     "\n"
     R"({"timestamp": 500, "input_length": 20, "output_length": 9, "image_tokens": [19]})"
     "\n"},
};

std::string with_crlf(std::string_view text) {
  std::string result;
  for (const char c : text) result += c == '\n' ? "\r\n" : std::string(1, c);
  return result;
}

TEST(TraceReader, TellsEachFormatFromItsFirstLine) {
  for (const Sample& sample : kSamples) {
    SCOPED_TRACE(sample.format);
    const Trace trace = parsed(sample.text);
    EXPECT_EQ(trace.format, sample.format);
    ASSERT_EQ(trace.requests.size(), 2u);
    EXPECT_EQ(trace.requests[0].prompt_tokens, 600);
    EXPECT_EQ(trace.requests[1].arrival_ns, kSecond / 2);
    EXPECT_EQ(trace.requests[1].prompt_tokens, 20);
    EXPECT_EQ(trace.requests[1].output_tokens, 9);
  }
}

TEST(TraceReader, AByteOrderMarkAndCrlfChangeNothing) {
  for (const Sample& sample : kSamples) {
    SCOPED_TRACE(sample.format);
    const Trace plain = parsed(sample.text);
    for (const auto format :
         {std::optional<TraceFormat>(), std::optional(trace_format(sample.format))}) {
      const Trace windows = parsed("\xef\xbb\xbf" + with_crlf(sample.text), {.format = format});
      EXPECT_EQ(windows.format, sample.format);
      EXPECT_EQ(windows.requests, plain.requests);
      EXPECT_EQ(windows.segments, plain.segments);
    }
  }
}

TEST(TraceReader, ALastLineWithoutItsEndIsRead) {
  for (const Sample& sample : kSamples)
    EXPECT_EQ(parsed(sample.text.substr(0, sample.text.size() - 1)).requests.size(), 2u)
        << sample.format;
}

TEST(TraceReader, ATornLastLineIsAnErrorOrIsSkippedAndCounted) {
  for (const Sample& sample : kSamples) {
    SCOPED_TRACE(sample.format);
    const std::string torn(sample.text.substr(0, sample.text.size() - 5));
    const bool csv = sample.text.starts_with("TIME");
    const std::string error = error_of(torn);
    EXPECT_TRUE(error.starts_with(csv ? "t.log:3: field '" : "t.log:2: field '")) << error;
    EXPECT_NE(error.find("expected"), std::string::npos) << error;
    EXPECT_EQ(error.find('\n'), std::string::npos) << error;
    const Trace trace = parsed(torn, {.skip_bad_rows = true});
    EXPECT_EQ(trace.skipped_rows, 1);
    EXPECT_EQ(trace.requests.size(), 1u);
  }
}

TEST(TraceReader, ATraceThatBeginsWithoutImagesKeepsThoseOfLaterRows) {
  const Trace trace =
      parsed(R"({"timestamp": 0, "input_length": 5, "output_length": 1, "hash_ids": [1]})"
             "\n"
             R"({"timestamp": 1, "input_length": 9, "output_length": 1, "image_tokens": [4]})"
             "\n");
  EXPECT_EQ(trace.format, "modalkv");
  EXPECT_EQ(trace.requests[1].prompt_tokens, 9);
  EXPECT_EQ(trace.requests[1].visual_tokens, 4);
}

TEST(TraceReader, RowsOutOfOrderAreErrors) {
  EXPECT_EQ(error_of(R"({"timestamp": 5, "input_length": 1, "output_length": 1})"
                     "\n"
                     R"({"timestamp": 4.999, "input_length": 1, "output_length": 1})"
                     "\n"),
            "t.log:2: field 'timestamp': found a time before the row above, expected rows in the "
            "order of arrival");
  EXPECT_EQ(error_of("TIMESTAMP,ContextTokens,GeneratedTokens\n"
                     "2023-11-16 18:15:46,1,1\n"
                     "2023-11-16 18:15:46,1,1\n"
                     "2023-11-16 18:15:45.9,1,1\n"),
            "t.log:4: field 'TIMESTAMP': found a time before the row above, expected rows in the "
            "order of arrival");
}

TEST(TraceReader, MoreThanAYearIsADamagedFile) {
  const std::string header = "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-01-01 00:00:00,1,1\n";
  EXPECT_EQ(parsed(header + "2024-01-02 00:00:00,1,1\n").requests[1].arrival_ns,
            366 * 86'400 * kSecond);
  EXPECT_TRUE(error_of(header + "2024-01-02 00:00:01,1,1\n").starts_with("t.log:3: field 'TIMEST"));
  EXPECT_TRUE(error_of(R"({"timestamp": 31622400001, "input_length": 1, "output_length": 1})")
                  .starts_with("t.log:1: field 'timestamp'"));
}

TEST(TraceReader, SkippingGoesOnBehindBadRowsAndCountsThem) {
  const std::string text = R"({"timestamp": 5, "input_length": 1, "output_length": 1})"
                           "\nNaN\n"
                           R"({"timestamp": 6, "input_length": -1, "output_length": 1})"
                           "\n\n"
                           R"({"timestamp": 4, "input_length": 1, "output_length": 1})"
                           "\n"
                           R"({"timestamp": 7, "input_length": 3, "output_length": 2})"
                           "\n";
  EXPECT_TRUE(error_of(text).starts_with("t.log:2: field 'row': found NaN, expected "));
  const Trace trace = parsed(text, {.skip_bad_rows = true});
  EXPECT_EQ(trace.skipped_rows, 3);
  ASSERT_EQ(trace.requests.size(), 2u);
  EXPECT_EQ(trace.requests[1].arrival_ns, 7 * kMillisecond);
  EXPECT_EQ(trace.requests[1].prompt_tokens, 3);
}

TEST(TraceReader, EmptyLinesAreNoRowsButAreCounted) {
  const std::string row = R"({"timestamp": 0, "input_length": 1, "output_length": 1})";
  EXPECT_EQ(parsed(row + "\n\n" + row + "\n\n").requests.size(), 2u);
  EXPECT_TRUE(error_of(row + "\n\n\r\nx\n").starts_with("t.log:4: "));
}

TEST(TraceReader, NothingToReadIsAnError) {
  EXPECT_EQ(error_of(""), "t.log: the file is empty");
  EXPECT_EQ(error_of("\xef\xbb\xbf"), "t.log: the file is empty");
  EXPECT_EQ(error_of("TIMESTAMP,ContextTokens,GeneratedTokens\n"), "t.log: no requests in it");
  EXPECT_EQ(error_of("{\n[\n", {.format = TraceFormat::modalkv, .skip_bad_rows = true}),
            "t.log:1: field 'row': found the end of the line, expected a key in quotes (none of "
            "the 2 rows could be read)");
}

TEST(TraceReader, UnknownFormatsAreErrorsThatNameTheKnown) {
  for (const std::string& error : {error_of("time,tokens\n1,2\n"), [] {
                                     try {
                                       trace_format("csv");
                                       return std::string("no error");
                                     } catch (const Error& caught) {
                                       return std::string(caught.what());
                                     }
                                   }()}) {
    EXPECT_NE(error.find("unknown trace format"), std::string::npos) << error;
    EXPECT_NE(error.find("azure-llm, azure-lmm, mooncake, servegen, modalkv"), std::string::npos)
        << error;
    EXPECT_EQ(error.find('\n'), std::string::npos) << error;
  }
  EXPECT_TRUE(error_of("time,tokens\n1,2\n").starts_with("t.log:1: "));
}

TEST(TraceReader, FormatNamesAndFormatsAreOneToOne) {
  for (const Sample& sample : kSamples) EXPECT_EQ(name(trace_format(sample.format)), sample.format);
}

TEST(TraceReader, ErrorsStayOneShortLineWhateverTheFileSays) {
  const std::string error =
      error_of("{\"a\\nb" + std::string(10'000, 'x') + "\": 1}", {.format = TraceFormat::modalkv});
  EXPECT_EQ(error.find('\n'), std::string::npos);
  EXPECT_LT(error.size(), 300u);
}

TEST(TraceReader, ALimitKeepsTheFirstRequests) {
  for (const Sample& sample : kSamples) {
    const Trace first = parsed(sample.text, {.limit = 1});
    ASSERT_EQ(first.requests.size(), 1u) << sample.format;
    EXPECT_EQ(first.requests[0].prompt_tokens, 600) << sample.format;
    EXPECT_EQ(parsed(sample.text, {.limit = 5}).requests.size(), 2u) << sample.format;
  }
}

TEST(TraceReader, ReadsFilesAndNamesThemInErrors) {
  const fs::path path =
      fs::path(testing::TempDir()) / fmt::format("modalkv_trace_{}.jsonl", getpid());
  std::ofstream(path, std::ios::binary) << kSamples[4].text;
  const Trace trace = read_trace(path, {});
  EXPECT_EQ(trace.name, path.filename());
  EXPECT_EQ(trace.requests, parsed(kSamples[4].text).requests);
  std::ofstream(path, std::ios::binary) << "{}\n";
  const auto error = [&] {
    try {
      read_trace(path, {.format = TraceFormat::modalkv});
      return std::string("no error");
    } catch (const Error& caught) {
      return std::string(caught.what());
    }
  };
  EXPECT_TRUE(error().starts_with(path.string() + ":1: field 'timestamp'")) << error();
  fs::remove(path);
  EXPECT_TRUE(error().starts_with(path.string() + ": cannot be read: ")) << error();
}

}  // namespace
}  // namespace modalkv
