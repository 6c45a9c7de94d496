#include <array>
#include <charconv>
#include <chrono>
#include <cmath>
#include <string>

#include "tools/trace/row_error.hpp"
#include "tools/trace/trace_rows.hpp"

namespace modalkv {
namespace {

int digits(std::string_view text, std::size_t first, std::size_t count) {
  int value = 0;
  const char* begin = text.data() + first;
  const auto result = std::from_chars(begin, begin + count, value);
  if (result.ec != std::errc() || result.ptr != begin + count || text[first] == '-')
    throw RowError("TIMESTAMP", text, "YYYY-MM-DD HH:MM:SS.fffffff");
  return value;
}

// The year's bounds keep nanoseconds in 64 bits.
Nanos parse_timestamp(std::string_view text) {
  constexpr std::string_view shape = "0000-00-00 00:00:00";
  const auto malformed = [&] { return RowError("TIMESTAMP", text, "YYYY-MM-DD HH:MM:SS.fffffff"); };
  if (text.size() < shape.size()) throw malformed();
  for (const std::size_t i : {4u, 7u, 10u, 13u, 16u})
    if (text[i] != shape[i]) throw malformed();
  const int year = digits(text, 0, 4), month = digits(text, 5, 2), day = digits(text, 8, 2);
  const int hour = digits(text, 11, 2), minute = digits(text, 14, 2), second = digits(text, 17, 2);
  const auto date = std::chrono::year(year) / month / day;
  if (year < 1970 || year > 2200 || !date.ok() || hour > 23 || minute > 59 || second > 60)
    throw malformed();
  Nanos fraction_ns = 0;
  std::string_view rest = text.substr(shape.size());
  if (rest.ends_with("+00:00")) rest.remove_suffix(6);
  if (!rest.empty()) {
    if (rest[0] != '.' || rest.size() < 2 || rest.size() > 10) throw malformed();
    Nanos digit_ns = kSecond;
    for (const char c : rest.substr(1)) {
      if (c < '0' || c > '9') throw malformed();
      digit_ns /= 10;
      fraction_ns += (c - '0') * digit_ns;
    }
  }
  const std::int64_t days = std::chrono::sys_days(date).time_since_epoch().count();
  return (days * 86'400 + hour * 3600 + minute * 60 + second) * kSecond + fraction_ns;
}

std::int64_t parse_count(std::string_view field, std::string_view text, std::int64_t low) {
  std::int64_t value = 0;
  const auto result = std::from_chars(text.data(), text.data() + text.size(), value);
  if (result.ec != std::errc() || result.ptr != text.data() + text.size() || value < low ||
      value > kMostTraceTokens)
    throw RowError(field, text, fmt::format("a whole number from {} to {}", low, kMostTraceTokens));
  return value;
}

void add_images(std::int64_t number, Tokens context, const TraceOptions& options, TraceRow& row) {
  std::int64_t images = number;
  if (options.images_squared) {
    images = std::llround(std::sqrt(static_cast<double>(number)));
    if (images * images != number)
      throw RowError("NumImages", fmt::format("{}", number),
                     "a square (if this file's are not: --images-not-squared)");
  }
  if (images == 0) return;
  if (images >= context)
    throw RowError("NumImages", fmt::format("{}", number), "fewer images than context tokens");
  const Tokens each = std::min(options.azure_image_tokens, (context - 1) / images);
  for (std::int64_t i = 0; i < images; ++i)
    row.segments.push_back({.token_class = TokenClass::image, .tokens = each});
}

}  // namespace

void parse_azure_row(std::string_view line, const TraceOptions& options, bool with_images,
                     TraceRow& row) {
  const std::size_t columns = with_images ? 4 : 3;
  std::array<std::string_view, 4> cells;
  std::size_t found = 0, first = 0;
  for (std::size_t i = 0; i <= line.size(); ++i) {
    if (i < line.size() && line[i] != ',') continue;
    if (found < columns) cells[found] = line.substr(first, i - first);
    ++found;
    first = i + 1;
  }
  if (found != columns)
    throw RowError("row", fmt::format("{} columns", found), fmt::format("{}", columns));
  row.clock_ns = parse_timestamp(cells[0]);
  const Tokens context = parse_count("ContextTokens", cells[columns - 2], 1);
  row.output_tokens = parse_count("GeneratedTokens", cells[columns - 1], 1);
  row.segments.clear();
  if (with_images) add_images(parse_count("NumImages", cells[1], 0), context, options, row);
  Tokens text = context;
  for (const Segment& segment : row.segments) text -= segment.tokens;
  row.segments.push_back({.token_class = TokenClass::text, .tokens = text});
}

}  // namespace modalkv
