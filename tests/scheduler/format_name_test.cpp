#include "scheduler/format_name.hpp"

#include <gtest/gtest.h>

#include "modalkv/error.hpp"
#include "modalkv/page.hpp"

namespace modalkv {
namespace {

ElementFormat integer(NumberFormat number, int group, int scale_bytes = 2, int zero_bytes = 2,
                      bool per_channel = false) {
  return {number, group, scale_bytes, zero_bytes, per_channel};
}

TEST(FormatName, ReadsWhatItSays) {
  using enum NumberFormat;
  struct Case {
    const char* text;
    KvFormat format;
  };
  const Case cases[] = {
      {"fp16", both(modalkv::fp16())},
      {"bf16", both(modalkv::bf16())},
      {"fp8", both(modalkv::fp8_e4m3())},
      {"nvfp4", both(modalkv::nvfp4())},
      {"mxfp4", both(modalkv::mxfp4())},
      {"int8", both(integer(int8, 0))},
      {"int4", both(integer(int4, 0))},
      {"int2", both(integer(int2, 64))},
      {"int4-g32", both(integer(int4, 32))},
      {"int2-g128", both(integer(int2, 128))},
      {"int8-g64", both(integer(int8, 64))},
      {"int2-head", both(integer(int2, 0))},
      {"int4-channel", both(integer(int4, 0, 2, 2, true))},
      {"int4-channel-g32", both(integer(int4, 32, 2, 2, true))},
      {"int4-g32-symmetric", both(integer(int4, 32, 2, 0))},
      {"int4-symmetric-fp8meta", both(integer(int4, 0, 1, 0))},
      {"int2-fp8meta-g32", both(integer(int2, 32, 1, 1))},
      {"int8-int4", {integer(int8, 0), integer(int4, 0)}},
      {"int8-head-int4-g32", {integer(int8, 0), integer(int4, 32)}},
      {"int4-channel-int4", {integer(int4, 0, 2, 2, true), integer(int4, 0)}},
      {"bf16-nvfp4", {modalkv::bf16(), modalkv::nvfp4()}},
  };
  for (const Case& each : cases) {
    const KvFormat read = parse_kv_format(each.text);
    EXPECT_EQ(read, each.format) << each.text;
    EXPECT_TRUE(is_page({64, 4, 128, read})) << each.text;
  }
}

// The message must be one line that names what is wrong.
void expect_refused(const char* text, const char* part) {
  try {
    static_cast<void>(parse_kv_format(text));
    FAIL() << "'" << text << "' was read";
  } catch (const Error& error) {
    const std::string message = error.what();
    EXPECT_NE(message.find(part), std::string::npos) << text << ": " << message;
    EXPECT_EQ(message.find('\n'), std::string::npos) << message;
  }
}

TEST(FormatName, RefusesWhatItDoesNotSay) {
  for (const auto& [text, part] : {std::pair{"", "'' is no number format"},
                                   {"int3", "'int3' is no number format"},
                                   {"INT4", "'INT4'"},
                                   {"g32", "'g32' is no number format"},
                                   {"int4-", "'-'"},
                                   {"int4-g", "'-g'"},
                                   {"int4-g0", "'-g0'"},
                                   {"int4-g-32", "'-g'"},
                                   {"int4-g24", "multiple of 16"},
                                   {"int4-g8192", "'-g8192'"},
                                   {"int4-g32x", "'-g32x'"},
                                   {"int4-g99999999999", "'-g99999999999'"},
                                   {"int4-g32-g64", "'-g64' is unknown, repeated"},
                                   {"int4-head-g64", "'-g64'"},
                                   {"int4-head-channel", "contradicts"},
                                   {"int4-channel-head", "contradicts"},
                                   {"int4-symmetric-symmetric", "repeated"},
                                   {"fp16-g32", "fp16 takes no suffix"},
                                   {"fp8-head", "fp8 takes no suffix"},
                                   {"int4-nvfp4-g32", "nvfp4 takes no suffix"},
                                   {"int8-int4-int2", "third number"}})
    expect_refused(text, part);
}

TEST(FormatName, IsDescribedInWords) {
  EXPECT_EQ(describe(parse_kv_format("fp16")), "fp16");
  EXPECT_EQ(describe(parse_kv_format("int4-g64")), "int4, FP16 scale and zero per 64 elements");
  EXPECT_EQ(describe(parse_kv_format("int8-head-int2-channel-symmetric-fp8meta")),
            "K int8, FP16 scale and zero per token and head; V int2, FP8 scale per channel over "
            "the page");
}

}  // namespace
}  // namespace modalkv
