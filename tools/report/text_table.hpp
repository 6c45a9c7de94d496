// A table of plain text for a terminal.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace modalkv {

/// Columns of `text` (UTF-8) on a terminal: combining marks take none, East Asian wide ones two.
std::size_t display_width(std::string_view text);

/// Rows of cells under a header, each column as wide as its widest cell.
class TextTable {
 public:
  enum class Align { left, right };
  struct Column {
    std::string title;
    Align align = Align::right;
  };

  explicit TextTable(std::vector<Column> columns);

  /// `cells`: one a column; fewer leave the rest empty, more are a bug.
  void add_row(std::vector<std::string> cells);

  /// The next row starts a new group: a rule is drawn above it.
  void add_rule();

  /// Lines of text, the last ended too, no trailing blanks. With `max_width` > 0 a last column that
  /// is aligned left and does not fit is broken at blanks and goes on below itself.
  std::string str(std::size_t max_width = 0) const;

 private:
  std::vector<Column> columns_;
  std::vector<std::vector<std::string>> rows_;  ///< an empty row is a rule
};

}  // namespace modalkv
