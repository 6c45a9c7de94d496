#include "tools/trace/json_line.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>

#include "tools/trace/row_error.hpp"

namespace modalkv {
namespace {

constexpr int kDeepest = 32;

bool is_digit(char c) {
  return c >= '0' && c <= '9';
}

void append_utf8(std::string& text, unsigned code) {
  if (code < 0x80) {
    text += static_cast<char>(code);
  } else if (code < 0x800) {
    text += static_cast<char>(0xc0 | (code >> 6));
    text += static_cast<char>(0x80 | (code & 63));
  } else {
    text += static_cast<char>(0xe0 | (code >> 12));
    text += static_cast<char>(0x80 | ((code >> 6) & 63));
    text += static_cast<char>(0x80 | (code & 63));
  }
}

}  // namespace

JsonLine::JsonLine(std::string_view text) : text_(text) {
  expect('{', "a JSON object");
}

void JsonLine::fail(std::string_view field, std::string_view expected) const {
  if (at_ >= text_.size()) throw RowError(field, "the end of the line", expected);
  std::string_view found = text_.substr(at_);
  // A number or a word is shown without what follows it; anything else as far as it fits.
  if (std::string_view("\"[{").find(found[0]) == std::string_view::npos)
    found = found.substr(0, std::max<std::size_t>(1, found.find_first_of(",}] \t")));
  throw RowError(field, found, expected);
}

char JsonLine::peek() {
  while (at_ < text_.size() && (text_[at_] == ' ' || text_[at_] == '\t')) ++at_;
  return at_ < text_.size() ? text_[at_] : '\0';
}

void JsonLine::expect(char c, std::string_view expected) {
  if (peek() != c || at_ >= text_.size()) fail("row", expected);
  ++at_;
}

bool JsonLine::next_key(std::string& key) {
  if (peek() == '}') {
    ++at_;
    if (peek() != '\0' || at_ < text_.size()) fail("row", "nothing after the object");
    return false;
  }
  if (!first_) expect(',', "',' or '}'");
  first_ = false;
  if (peek() != '"') fail("row", "a key in quotes");
  key = quoted("row");
  expect(':', "':' after a key");
  return true;
}

// JSON's own grammar: no leading zeros or plus, digits on both sides of the point.
std::string_view JsonLine::number_text(std::string_view field, std::string_view expected) {
  peek();
  std::size_t end = at_;
  const auto digits = [&] {
    const std::size_t first = end;
    while (end < text_.size() && is_digit(text_[end])) ++end;
    return end - first;
  };
  if (end < text_.size() && text_[end] == '-') ++end;
  const std::size_t whole = end;
  const std::size_t whole_digits = digits();
  if (whole_digits == 0 || (whole_digits > 1 && text_[whole] == '0')) fail(field, expected);
  if (end < text_.size() && text_[end] == '.') {
    ++end;
    if (digits() == 0) fail(field, expected);
  }
  if (end < text_.size() && (text_[end] == 'e' || text_[end] == 'E')) {
    ++end;
    if (end < text_.size() && (text_[end] == '+' || text_[end] == '-')) ++end;
    if (digits() == 0) fail(field, expected);
  }
  return text_.substr(at_, end - at_);
}

long double JsonLine::number(std::string_view field, double low, double high) {
  const auto expected = [&] { return fmt::format("a number from {} to {}", low, high); };
  const std::string_view text = number_text(field, "a number");
  long double value = 0;
  const auto result = std::from_chars(text.data(), text.data() + text.size(), value);
  if (result.ec != std::errc() || !(value >= low && value <= high)) fail(field, expected());
  at_ += text.size();
  return value;
}

std::int64_t JsonLine::integer(std::string_view field, std::int64_t low, std::int64_t high) {
  const auto expected = [&] { return fmt::format("a whole number from {} to {}", low, high); };
  const std::string_view text = number_text(field, "a whole number");
  std::int64_t value = 0;
  const auto result = std::from_chars(text.data(), text.data() + text.size(), value);
  if (result.ec != std::errc() || result.ptr != text.data() + text.size() || value < low ||
      value > high)
    fail(field, expected());
  at_ += text.size();
  return value;
}

std::string JsonLine::string(std::string_view field) {
  if (peek() != '"') fail(field, "a string");
  return quoted(field);
}

unsigned JsonLine::hex4(std::string_view field) {
  unsigned code = 0;
  if (at_ + 4 > text_.size()) fail(field, "four hexadecimal digits");
  const auto result = std::from_chars(text_.data() + at_, text_.data() + at_ + 4, code, 16);
  if (result.ec != std::errc() || result.ptr != text_.data() + at_ + 4)
    fail(field, "four hexadecimal digits");
  at_ += 4;
  return code;
}

std::string JsonLine::quoted(std::string_view field) {
  std::string value;
  for (++at_; at_ < text_.size(); ++at_) {
    const char c = text_[at_];
    if (c == '"') {
      ++at_;
      return value;
    }
    if (static_cast<unsigned char>(c) < 0x20) break;
    if (c != '\\') {
      value += c;
      continue;
    }
    if (++at_ == text_.size()) break;
    const char escape = text_[at_];
    constexpr std::string_view from = "\"\\/bfnrt", to = "\"\\/\b\f\n\r\t";
    if (const auto known = from.find(escape); known != std::string_view::npos) {
      value += to[known];
    } else if (escape == 'u') {
      ++at_;
      append_utf8(value, hex4(field));  // surrogates stay as they are: ids are compared, not shown
      --at_;
    } else {
      fail(field, "a JSON escape");
    }
  }
  fail(field, "a closing quote");
}

void JsonLine::begin_array(std::string_view field) {
  if (peek() != '[') fail(field, "an array");
  ++at_;
  first_element_ = true;
}

bool JsonLine::next_element(std::string_view field) {
  if (peek() == ']') {
    ++at_;
    return false;
  }
  if (!first_element_) {
    if (peek() != ',') fail(field, "',' or ']'");
    ++at_;
    if (peek() == ']') fail(field, "a value after ','");
  }
  first_element_ = false;
  return true;
}

void JsonLine::skip() {
  skip_value(0);
}

void JsonLine::skip_value(int depth) {
  if (depth > kDeepest) fail("row", "less nesting");
  const char c = peek();
  if (c == '"') {
    quoted("row");
  } else if (c == '{' || c == '[') {
    const char close = c == '{' ? '}' : ']';
    ++at_;
    bool first = true;
    while (peek() != close) {
      if (!first) expect(',', "','");
      first = false;
      if (c == '{') {
        if (peek() != '"') fail("row", "a key in quotes");
        quoted("row");
        expect(':', "':' after a key");
      }
      skip_value(depth + 1);
    }
    ++at_;
  } else if (c == '-' || is_digit(c)) {
    at_ += number_text("row", "a value").size();
  } else {
    for (const std::string_view word : {"true", "false", "null"})
      if (text_.substr(at_, word.size()) == word) {
        at_ += word.size();
        return;
      }
    fail("row", "a value");
  }
}

}  // namespace modalkv
