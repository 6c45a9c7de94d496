// Measures encoding: 16-bit K and V in, pages with their checksums out.
#pragma once

#include <cstdint>
#include <string_view>

#include "modalkv/page.hpp"
#include "tools/bench/bench_report.hpp"
#include "tools/bench/format_mix.hpp"

namespace modalkv {

struct EncodeCase {
  FormatShare format;
  int kv_heads = 4, head_dim = 128;
  Tokens page_tokens = 64;
  NumberFormat input = NumberFormat::fp16;
  int threads = 1;
  int runs = 0;  ///< 0: as many as it takes
  std::uint64_t seed = 1;
};

/// Throws Error where the case cannot be measured here, or where a page does not verify.
BenchReport bench_encode(const EncodeCase& options, std::string_view command_line);

}  // namespace modalkv
