// Measures merging: partials of the same rows from several places become one.
#pragma once

#include <cstdint>
#include <string_view>

#include "tools/bench/bench_report.hpp"

namespace modalkv {

struct MergeCase {
  std::int64_t parts = 4, rows = 4096;
  int head_dim = 128;
  int threads = 1;
  int runs = 0;  ///< 0: as many as it takes
  std::uint64_t seed = 1;
};

/// Throws Error where the case cannot be measured here.
BenchReport bench_merge(const MergeCase& options, std::string_view command_line);

}  // namespace modalkv
