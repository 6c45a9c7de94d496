#include "tools/bench/format_mix.hpp"

#include <gtest/gtest.h>

#include "modalkv/error.hpp"

namespace modalkv {
namespace {

TEST(FormatMix, ReadsSharesInOrder) {
  const auto one = parse_format_mix("int4-g32");
  ASSERT_EQ(one.size(), 1u);
  EXPECT_EQ(one[0].format, parse_kv_format("int4-g32"));
  EXPECT_EQ(one[0].share, 1);
  const auto mix = parse_format_mix("fp16:0.1,int8-int4:0.65,int2:.25");
  ASSERT_EQ(mix.size(), 3u);
  EXPECT_EQ(mix[0].name, "fp16");
  EXPECT_EQ(mix[1].format, parse_kv_format("int8-int4"));
  EXPECT_DOUBLE_EQ(mix[1].share, 0.65);
  EXPECT_DOUBLE_EQ(mix[2].share, 0.25);
}

TEST(FormatMix, RefusesSharesThatAreNone) {
  for (const auto& [text, part] : {std::pair{"fp16,int4", "'fp16' has no share"},
                                   {"fp16:0.1,int4", "'int4' has no share"},
                                   {"fp16:0.1,int4:0.8", "add up to 0.9"},
                                   {"fp16:0.6,int4:0.6", "add up to 1.2"},
                                   {"fp16:x,int4:0.9", "share 'x'"},
                                   {"fp16:nan,int4:0.9", "share 'nan'"},
                                   {"fp16:0,int4:1", "share '0'"},
                                   {"fp16:-1,int4:2", "share '-1'"},
                                   {"fp16:,int4:1", "share ''"},
                                   {"fp16:0.5,", "'' has no share"},
                                   {":0.5,int4:0.5", "no number format"},
                                   {"fp3:0.5,int4:0.5", "'fp3'"}}) {
    try {
      static_cast<void>(parse_format_mix(text));
      FAIL() << "'" << text << "' was read";
    } catch (const Error& error) {
      const std::string message = error.what();
      EXPECT_NE(message.find(part), std::string::npos) << text << ": " << message;
      EXPECT_EQ(message.find('\n'), std::string::npos) << message;
    }
  }
}

}  // namespace
}  // namespace modalkv
