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
  KnownBias known_bias{};

  PageList list() const { return {shape, {}, addresses, tokens, positions, hidden, known_bias}; }
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

/// A bias of some ten standard deviations of the keys, and where tokens stand.
struct MadeBias {
  RopeSections sections;
  std::vector<float> elements, frequencies;
  std::vector<std::int32_t> positions;  ///< [tokens, axes]
  KeyBias bias;

  MadeBias(const PageShape& shape, RopeSections rope_sections,
           std::vector<std::int32_t> rope_positions, std::uint64_t seed)
      : sections(rope_sections),
        elements(static_cast<std::size_t>(shape.kv_heads * shape.head_dim)),
        frequencies(static_cast<std::size_t>(shape.head_dim / 2)),
        positions(std::move(rope_positions)) {
    std::mt19937_64 random(seed);
    std::normal_distribution<float> normal(0, 10);
    for (float& element : elements) element = normal(random);
    fill_rope_frequencies(1e4, frequencies);
    bias = {elements.data(), frequencies.data(), sections, shape.head_dim};
  }
  MadeBias(const MadeBias&) = delete;

  KnownBias of(Tokens begin, Tokens tokens) const {
    const std::int64_t axes = sections.axes();
    return {&bias, std::span(positions).subspan(static_cast<std::size_t>(begin * axes),
                                                static_cast<std::size_t>(tokens * axes))};
  }
};

/// Keys that carry the bias, in pages that leave it out.
inline MadeList make_biased_list(const PageShape& shape, Tokens tokens, const MadeBias& bias,
                                 std::uint64_t seed) {
  MadeList made{shape, tokens};
  made.known_bias = bias.of(0, tokens);
  std::vector<float> turned(static_cast<std::size_t>(shape.head_dim));
  for (Tokens begin = 0; begin < tokens; begin += shape.tokens) {
    const Tokens used = std::min(shape.tokens, tokens - begin);
    Tensor keys(shape, NumberFormat::bf16, Data::normal, seed++);
    const Tensor values(shape, NumberFormat::bf16, Data::normal, seed++);
    const KnownBias known = bias.of(begin, used);
    for (Tokens t = 0; t < used; ++t)
      for (int head = 0; head < shape.kv_heads; ++head) {
        rotated_bias(bias.bias, head,
                     &known.positions[static_cast<std::size_t>(t * bias.sections.axes())], turned);
        for (int d = 0; d < shape.head_dim; ++d)
          keys.set(t, head, d, keys.get(t, head, d) + turned[static_cast<std::size_t>(d)]);
      }
    made.pages.push_back(encode(shape, keys, values, used, {}, known).page);
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
