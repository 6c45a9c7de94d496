// What is wrong with one row of a trace. The reader adds file and line, or skips the row.
#pragma once

#include <fmt/format.h>

#include <stdexcept>
#include <string>
#include <string_view>

#include "modalkv/units.hpp"

namespace modalkv {

class RowError : public std::runtime_error {
 public:
  RowError(std::string_view field, std::string_view found, std::string_view expected)
      : std::runtime_error(fmt::format("field '{}': found {}, expected {}", shortened(field),
                                       shortened(found), expected)) {}

 private:
  static std::string shortened(std::string_view found) {
    if (found.empty()) return "nothing";
    std::string printable;
    for (const char c : found.substr(0, 40)) printable += c >= ' ' && c != 127 ? c : '?';
    return found.size() > 40 ? printable + "..." : printable;
  }
};

/// More tokens than any request has; what is above is a damaged file.
inline constexpr Tokens kMostTraceTokens = 10'000'000;
/// A year: longer traces are damaged too.
inline constexpr std::int64_t kLongestTraceSeconds = 366 * 86'400;

}  // namespace modalkv
