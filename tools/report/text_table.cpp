#include "tools/report/text_table.hpp"

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <utility>

namespace modalkv {
namespace {

constexpr std::string_view kGap = "  ";
constexpr std::string_view kRule = "─";
constexpr std::size_t kMinWrapWidth = 20;

std::size_t width_of(std::uint32_t code_point) {
  struct Range {
    std::uint32_t first, last;
  };
  constexpr Range kCombining[] = {{0x300, 0x36f}, {0x200b, 0x200f}, {0xfe00, 0xfe0f}};
  constexpr Range kWide[] = {{0x1100, 0x115f},   {0x2e80, 0xa4cf},  {0xac00, 0xd7a3},
                             {0xf900, 0xfaff},   {0xfe30, 0xfe6f},  {0xff00, 0xff60},
                             {0x1f300, 0x1faff}, {0x20000, 0x3fffd}};
  const auto contains = [&](const Range& range) {
    return range.first <= code_point && code_point <= range.last;
  };
  if (std::any_of(std::begin(kCombining), std::end(kCombining), contains)) return 0;
  return std::any_of(std::begin(kWide), std::end(kWide), contains) ? 2 : 1;
}

std::string repeat(std::string_view text, std::size_t count) {
  std::string out;
  for (std::size_t i = 0; i < count; ++i) out += text;
  return out;
}

/// Breaks at blanks; a word wider than `width` stands alone.
std::vector<std::string> wrap(const std::string& text, std::size_t width) {
  std::vector<std::string> lines(1);
  for (std::size_t begin = 0; begin < text.size();) {
    const std::size_t end = std::min(text.find(' ', begin), text.size());
    const std::string word = text.substr(begin, end - begin);
    std::string& line = lines.back();
    if (!line.empty() && display_width(line) + 1 + display_width(word) > width) {
      lines.push_back(word);
    } else {
      line += (line.empty() ? "" : " ") + word;
    }
    begin = end + 1;
  }
  return lines;
}

std::string without_trailing_blanks(std::string line) {
  line.erase(line.find_last_not_of(' ') + 1);
  return line;
}

}  // namespace

std::size_t display_width(std::string_view text) {
  std::size_t width = 0;
  for (std::size_t i = 0; i < text.size();) {
    const auto lead = static_cast<unsigned char>(text[i]);
    const std::size_t length = lead < 0x80 ? 1 : lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4;
    std::uint32_t code_point = length == 1 ? lead : lead & (0xffU >> (length + 1));
    for (std::size_t k = 1; k < length && i + k < text.size(); ++k) {
      code_point = (code_point << 6) | (static_cast<unsigned char>(text[i + k]) & 0x3fU);
    }
    width += width_of(code_point);
    i += length;
  }
  return width;
}

TextTable::TextTable(std::vector<Column> columns) : columns_(std::move(columns)) {}

void TextTable::add_row(std::vector<std::string> cells) {
  if (cells.size() > columns_.size()) std::abort();
  cells.resize(columns_.size());
  rows_.push_back(std::move(cells));
}

void TextTable::add_rule() {
  rows_.emplace_back();
}

std::string TextTable::str(std::size_t max_width) const {
  if (columns_.empty()) return {};
  std::vector<std::size_t> widths;
  for (const Column& column : columns_) widths.push_back(display_width(column.title));
  for (const auto& row : rows_) {
    for (std::size_t c = 0; c < row.size(); ++c) {
      widths[c] = std::max(widths[c], display_width(row[c]));
    }
  }

  std::size_t before_last = 0;
  for (std::size_t c = 0; c + 1 < widths.size(); ++c) before_last += widths[c] + kGap.size();
  if (max_width > 0 && columns_.back().align == Align::left) {
    const std::size_t room = max_width > before_last ? max_width - before_last : 0;
    widths.back() = std::min(widths.back(), std::max(room, kMinWrapWidth));
  }

  const auto line_of = [&](const std::vector<std::string>& cells) {
    std::string line;
    for (std::size_t c = 0; c < cells.size(); ++c) {
      const std::size_t width = display_width(cells[c]);
      const std::string pad(widths[c] > width ? widths[c] - width : 0, ' ');
      line += columns_[c].align == Align::left ? cells[c] + pad : pad + cells[c];
      if (c + 1 < cells.size()) line += kGap;
    }
    return without_trailing_blanks(line) + "\n";
  };
  const std::string rule = repeat(kRule, before_last + widths.back()) + "\n";

  std::vector<std::string> titles;
  for (const Column& column : columns_) titles.push_back(column.title);
  std::string out = line_of(titles) + rule;
  for (const auto& row : rows_) {
    if (row.empty()) {
      out += rule;
      continue;
    }
    auto cells = row;
    const bool too_wide = display_width(row.back()) > widths.back();
    const auto lines = too_wide ? wrap(row.back(), widths.back()) : std::vector{row.back()};
    for (const std::string& part : lines) {
      cells.back() = part;
      out += line_of(cells);
      cells.assign(columns_.size(), {});
    }
  }
  return out;
}

}  // namespace modalkv
