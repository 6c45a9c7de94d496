// A strict pull reader for one line of JSON: an object of known shape, read key by key without
// building a tree.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace modalkv {

/// Every call throws RowError where the line is not the JSON that it asks for. Usage:
///
///   JsonLine line(text);
///   std::string key;
///   while (line.next_key(key)) { if (key == "n") n = line.integer(key, 0, 10); else line.skip(); }
///
/// Keys that stand twice are the caller's to notice. Views into `text` are not kept.
class JsonLine {
 public:
  explicit JsonLine(std::string_view text);

  /// The next key of the object; false after its end, when nothing but blanks may follow.
  bool next_key(std::string& key);

  /// In more digits than a double has: a year in milliseconds keeps its nanoseconds.
  long double number(std::string_view field, double low, double high);
  std::int64_t integer(std::string_view field, std::int64_t low, std::int64_t high);
  std::string string(std::string_view field);
  bool at_string() { return peek() == '"'; }
  /// Steps into an array, then to each element; false at its end.
  void begin_array(std::string_view field);
  bool next_element(std::string_view field);
  /// Any value, nested to a depth of 32.
  void skip();

 private:
  char peek();
  void expect(char c, std::string_view expected);
  std::string_view number_text(std::string_view field, std::string_view expected);
  std::string quoted(std::string_view field);
  unsigned hex4(std::string_view field);
  void skip_value(int depth);
  [[noreturn]] void fail(std::string_view field, std::string_view expected) const;

  std::string_view text_;
  std::size_t at_ = 0;
  bool first_ = true;  // of the object's members
  bool first_element_ = false;
};

}  // namespace modalkv
