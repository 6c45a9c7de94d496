#include "tools/report/text_table.hpp"

#include <gtest/gtest.h>

#include <sstream>

namespace modalkv {
namespace {

using Align = TextTable::Align;

TEST(TextTable, AlignsBySideAndDrawsRules) {
  TextTable table({{"policy", Align::left}, {"ms"}});
  table.add_row({"fp16", "1.5"});
  table.add_rule();
  table.add_row({"text-centric", "12.25"});
  EXPECT_EQ(table.str(),
            "policy           ms\n"
            "───────────────────\n"
            "fp16            1.5\n"
            "───────────────────\n"
            "text-centric  12.25\n");
}

TEST(TextTable, CountsColumnsNotBytes) {
  EXPECT_EQ(display_width("µs"), 2u);
  EXPECT_EQ(display_width("─×→"), 3u);
  EXPECT_EQ(display_width("画像"), 4u);
  EXPECT_EQ(display_width("e\u0301"), 1u);
  TextTable table({{"a", Align::left}, {"b", Align::left}});
  table.add_row({"µµ", "x"});
  table.add_row({"mm", "y"});
  EXPECT_EQ(table.str(), "a   b\n─────\nµµ  x\nmm  y\n");
}

TEST(TextTable, WrapsOnlyTheLastColumn) {
  TextTable table({{"field", Align::left}, {"source", Align::left}});
  table.add_row({"rate", "one two three four five six seven eight nine ten"});
  const std::string text = table.str(30);
  std::istringstream lines(text);
  std::string line, words;
  while (std::getline(lines, line)) {
    EXPECT_LE(display_width(line), 30u) << line;
    words += line + "|";
  }
  EXPECT_NE(words.find("|rate   one two three four five|"), std::string::npos) << words;
  EXPECT_NE(words.find("|       six seven eight nine|       ten|"), std::string::npos) << words;
}

TEST(TextTable, ShortRowsAreFilledAndTornUtf8IsHarmless) {
  TextTable table({{"a", Align::left}, {"b"}});
  table.add_row({"\xe2\x94"});
  EXPECT_EQ(table.str().back(), '\n');
}

}  // namespace
}  // namespace modalkv
