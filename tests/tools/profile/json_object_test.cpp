#include "tools/profile/json_object.hpp"

#include <gtest/gtest.h>

#include "tests/tools/profile/profile_text.hpp"

namespace modalkv {
namespace {

std::string syntax_error(std::string_view text) {
  return error_of([&] { parse_json(text, "f.json"); });
}

TEST(ParseJson, SyntaxErrorsNameFileAndLine) {
  EXPECT_TRUE(syntax_error("{\n\"a\": 1,\n\"b\": }\n").starts_with("f.json:3: not valid JSON"));
  EXPECT_TRUE(syntax_error("{\n\"a\": [1, 2").starts_with("f.json:2: not valid JSON"));
  EXPECT_EQ(syntax_error(""), "f.json: the file is empty");
  EXPECT_TRUE(syntax_error("{} {}").starts_with("f.json:1: not valid JSON"));
  EXPECT_TRUE(syntax_error("{\"a\": NaN}").starts_with("f.json:1: not valid JSON"));
  EXPECT_TRUE(syntax_error("{\"a\": 1e999}").starts_with("f.json: not valid JSON: a number"));
}

TEST(ParseJson, AKeyThatStandsTwiceIsAnErrorAtAnyDepth) {
  EXPECT_EQ(syntax_error(R"({"a": 1, "a": 1})"), "f.json: key 'a' stands twice");
  EXPECT_EQ(syntax_error(R"({"x": [{"b": 1}, {"b": 1, "c": {}, "b": 2}]})"),
            "f.json: key 'b' stands twice");
  EXPECT_EQ(syntax_error(R"({"a": {"a": 1}, "b": {"a": 1}})"), "no error");
}

TEST(JsonObject, ErrorsNameThePathOfTheKey) {
  const auto document = parse_json(
      R"({"gpu": {"rate": "fast", "count": 1.5, "nodes": [{"cores": 0}]}, "list": {}})", "f.json");
  JsonObject top(document, "f.json");
  JsonObject gpu = top.object("gpu");
  EXPECT_EQ(error_of([&] { gpu.number("rate", 0, 1); }),
            "f.json: key 'gpu.rate': found \"fast\", expected a number from 0 to 1");
  EXPECT_EQ(error_of([&] { gpu.integer("count", 0, 9); }),
            "f.json: key 'gpu.count': found 1.5, expected a whole number from 0 to 9");
  EXPECT_EQ(error_of([&] { gpu.objects("nodes")[0].integer("cores", 1, 8); }),
            "f.json: key 'gpu.nodes[0].cores': found 0, expected a whole number from 1 to 8");
  EXPECT_EQ(error_of([&] { gpu.text("name"); }), "f.json: key 'gpu.name' is missing");
  EXPECT_EQ(error_of([&] { gpu.finish(); }), "no error");
  EXPECT_EQ(error_of([&] { top.objects("list"); }),
            "f.json: key 'list': found object, expected an array of objects");
  EXPECT_EQ(error_of([&] { gpu.object("rate"); }),
            "f.json: gpu.rate: found string, expected an object");
}

TEST(JsonObject, NumbersKeepTheirBounds) {
  const auto document =
      parse_json(R"({"low": 1, "high": 10, "big": 18446744073709551615, "minus": -1})", "f.json");
  JsonObject object(document, "f.json");
  EXPECT_EQ(object.integer("low", 1, 10), 1);
  EXPECT_EQ(object.integer("high", 1, 10), 10);
  EXPECT_EQ(object.number("high", 1, 10), 10);
  EXPECT_NE(error_of([&] { object.integer("low", 2, 10); }), "no error");
  EXPECT_NE(error_of([&] { object.integer("high", 1, 9); }), "no error");
  EXPECT_NE(error_of([&] { object.number("high", 1, 9.5); }), "no error");
  EXPECT_NE(error_of([&] { object.integer("big", INT64_MIN, INT64_MAX); }), "no error");
  EXPECT_NE(error_of([&] { object.integer("minus", 0, 9); }), "no error");
  EXPECT_EQ(object.integer_or("absent", 1, 10, 7), 7);
  EXPECT_EQ(object.number_or("absent", 1, 10, 7.5), 7.5);
  EXPECT_NE(error_of([&] { object.integer_or("high", 1, 9, 7); }), "no error");
}

TEST(JsonObject, BooleansAreNotNumbers) {
  const auto document = parse_json(R"({"yes": true, "one": 1})", "f.json");
  JsonObject object(document, "f.json");
  EXPECT_TRUE(object.boolean("yes", false));
  EXPECT_TRUE(object.boolean("absent", true));
  EXPECT_NE(error_of([&] { object.boolean("one", false); }), "no error");
  EXPECT_NE(error_of([&] { object.number("yes", 0, 1); }), "no error");
}

TEST(JsonObject, KeysThatNobodyAskedForAreUnknown) {
  const auto document = parse_json(R"({"a": 1, "note": 2, "b": {"c": 3}})", "f.json");
  JsonObject object(document, "f.json");
  object.ignore("note");
  object.integer("a", 0, 9);
  JsonObject inner = object.object("b");
  EXPECT_EQ(error_of([&] { object.finish(); }), "no error");
  EXPECT_EQ(error_of([&] { inner.finish(); }), "f.json: unknown key 'b.c'");
}

TEST(JsonObject, ErrorsStayOneShortLineWhateverTheFileSays) {
  const std::string key = "a\\nb" + std::string(1000, 'x');
  const std::string deep = std::string(100'000, '[') + std::string(100'000, ']');
  const auto document = parse_json(
      "{\"" + key + "\": 1, \"deep\": " + deep + ", \"long\": \"" + std::string(1000, 'y') + "\"}",
      "f.json");
  JsonObject object(document, "f.json");
  for (const std::string& error : {syntax_error("{\"" + key + "\": 1, \"" + key + "\": 1}"),
                                   error_of([&] { object.integer("deep", 0, 9); }),
                                   error_of([&] { object.integer("long", 0, 9); }), error_of([&] {
                                     object.ignore("deep");
                                     object.ignore("long");
                                     object.finish();
                                   })}) {
    EXPECT_TRUE(error.starts_with("f.json: ")) << error;
    EXPECT_EQ(error.find('\n'), std::string::npos) << error;
    EXPECT_LT(error.size(), 200u) << error;
  }
}

}  // namespace
}  // namespace modalkv
