// What kernels that read pages share about query rows: their elements, and which tokens they see.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <span>

#include "kernels/attention.hpp"
#include "kernels/number.hpp"
#include "kernels/page_layout.hpp"

namespace modalkv {

/// The elements of a row, scaled as its logits are.
inline void load_query(const Queries& queries, Tokens token, int head, std::span<float> to) {
  const std::uint16_t* from =
      queries.elements + token * queries.token_stride + head * queries.head_stride;
  for (float& element : to) element = queries.scale * from_16bit(*from++, queries.number);
}

/// The first and the last position that a query token sees.
struct SeenPositions {
  std::int32_t first, last;

  bool contain(std::int32_t position) const { return position >= first && position <= last; }
};

/// Of queries that have positions.
inline SeenPositions seen_positions(const Queries& queries, Tokens token) {
  constexpr std::int64_t lowest = std::numeric_limits<std::int32_t>::min();
  const std::int32_t last = queries.positions[static_cast<std::size_t>(token)];
  if (queries.window <= 0) return {static_cast<std::int32_t>(lowest), last};
  return {static_cast<std::int32_t>(std::max(lowest, std::int64_t{last} - queries.window + 1)),
          last};
}

/// Of the 16 tokens of a list from `begin`, a multiple of 16, a bit for each that is not hidden.
inline std::uint32_t present_tokens(const PageList& list, Tokens begin) {
  const Tokens left = std::min<Tokens>(kLineRows, list.tokens - begin);
  const std::uint32_t all = (std::uint32_t{1} << left) - 1;
  if (list.hidden.empty()) return all;
  const std::uint64_t word = list.hidden[static_cast<std::size_t>(begin / 64)];
  return all & ~static_cast<std::uint32_t>(word >> begin % 64);
}

}  // namespace modalkv
