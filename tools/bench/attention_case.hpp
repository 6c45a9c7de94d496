// Measures decode attention over pages in host memory.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "modalkv/page.hpp"
#include "tools/bench/bench_report.hpp"
#include "tools/bench/format_mix.hpp"

namespace modalkv {

struct AttentionCase {
  std::vector<FormatShare> mix;
  int q_heads = 32, kv_heads = 32, head_dim = 128;
  Tokens tokens = 16384;  ///< of a sequence, the mean of the batch
  int batch = 1;
  Tokens page_tokens = 64;
  NumberFormat input = NumberFormat::fp16;
  double query_scale = 1;
  int threads = 1;
  int runs = 0;  ///< 0: as many as it takes
  std::uint64_t seed = 1;
};

/// Throws Error where the case cannot be measured here. Takes seconds.
BenchReport bench_attention(const AttentionCase& options, std::string_view command_line);

}  // namespace modalkv
