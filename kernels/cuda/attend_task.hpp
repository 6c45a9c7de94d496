// What attention kernels are told, by value.
#pragma once

#include <cstddef>
#include <cstdint>

#include "modalkv/op.hpp"

namespace modalkv {

/// One operation's addresses.
struct AttendTask {
  const std::uint16_t* queries;  ///< [query_tokens, query_heads, head_dim]
  const std::byte* pages;
  const std::byte* page_table;
  const std::int32_t* query_positions;  ///< nullptr: all tokens are visible
  const std::int32_t* token_positions;
  const std::uint64_t* hidden;         ///< nullptr: none is
  const std::int32_t* bias_positions;  ///< [tokens, axes]; nullptr: keys lack no bias
  float* partials;                     ///< [splits, rows, head_dim + 2]
  Bytes pages_bytes;
  Tokens tokens;
  std::int32_t first_split;  ///< among those of all tasks
  std::int32_t split_tiles;  ///< of 16 tokens, of each split
};

/// What the operations of one launch have in common.
struct AttendShape {
  PageShape page;
  Bytes page_bytes;
  std::int32_t query_heads, query_tokens;
  NumberFormat input;
  float logit_scale, key_scale, value_scale;
  std::int32_t window;
  const float* bias;         ///< [kv_heads, head_dim]
  const float* frequencies;  ///< [head_dim / 2]
  RopeSections sections;

  /// Query heads of a KV head.
  constexpr int group() const { return query_heads / page.kv_heads; }
  /// Query rows of a KV head: [query_tokens, group].
  constexpr int head_rows() const { return query_tokens * group(); }
};

inline constexpr int kMostTasks = 32;

struct AttendLaunch {
  AttendShape shape;
  std::uint32_t* status;
  std::int32_t tasks;
  AttendTask task[kMostTasks];
};
static_assert(sizeof(AttendLaunch) <= 4096, "more than kernel parameters may have on all GPUs");

}  // namespace modalkv
