// Made-up lists of pages and the queries that attend to them.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <random>
#include <vector>

#include "kernels/attention.hpp"
#include "tests/kernels/made_pages.hpp"
#include "tests/kernels/reference_attention.hpp"

namespace modalkv {

struct MadeList {
  PageShape shape;
  Tokens tokens;
  std::vector<Page> pages{};
  std::vector<const std::byte*> addresses{};
  std::vector<std::int32_t> positions{};
  std::vector<std::uint64_t> hidden{};

  PageList list() const { return {shape, {}, addresses, tokens, positions, hidden}; }
};

inline MadeList make_list(const PageShape& shape, Tokens tokens, std::uint64_t seed,
                          Data data = Data::normal) {
  MadeList made{shape, tokens};
  for (Tokens begin = 0; begin < tokens; begin += shape.tokens) {
    const Tensor keys(shape, NumberFormat::fp16, data, seed++);
    const Tensor values(shape, NumberFormat::fp16, data, seed++);
    made.pages.push_back(encode(shape, keys, values, std::min(shape.tokens, tokens - begin)).page);
  }
  for (const Page& page : made.pages) made.addresses.push_back(page.data());
  return made;
}

struct MadeQueries {
  Tokens tokens;
  int heads, head_dim;
  NumberFormat number;
  std::vector<std::uint16_t> elements{};  ///< token rows lie further apart than they need
  std::vector<std::int32_t> positions{};
  std::int32_t window = 0;

  std::int64_t rows() const { return tokens * heads; }
  std::int64_t token_stride() const { return std::int64_t{heads} * head_dim + 8; }
  Queries queries() const {
    return {elements.data(),
            number,
            tokens,
            heads,
            token_stride(),
            head_dim,
            1 / std::sqrt(static_cast<float>(head_dim)),
            positions,
            window};
  }
};

/// `size`: standard deviation of the elements; 0 makes attention flat, 4 peaked.
inline MadeQueries make_queries(Tokens tokens, int heads, int head_dim, float size,
                                std::uint64_t seed, NumberFormat number = NumberFormat::bf16) {
  MadeQueries made{tokens, heads, head_dim, number};
  made.elements.resize(static_cast<std::size_t>(tokens * made.token_stride()));
  std::mt19937_64 random(seed);
  std::normal_distribution<float> normal;
  for (std::uint16_t& element : made.elements)
    element = number == NumberFormat::bf16 ? to_bf16(size * normal(random))
                                           : to_fp16(size * normal(random));
  return made;
}

}  // namespace modalkv
