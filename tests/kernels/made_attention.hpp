// Made-up lists of pages and queries, and plain attention over what the pages decode to.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <vector>

#include "kernels/attention.hpp"
#include "tests/kernels/made_pages.hpp"

namespace modalkv {

// A list of pages, and what it decodes to.
struct MadeList {
  PageShape shape;
  Tokens tokens;
  std::vector<Page> pages{};
  std::vector<const std::byte*> addresses{};
  std::vector<float> keys{}, values{};  // [tokens, kv_heads, head_dim]
  std::vector<std::int32_t> positions{};
  std::vector<std::uint64_t> hidden{};

  PageList list() const { return {shape, {}, addresses, tokens, positions, hidden}; }
  bool is_hidden(Tokens token) const {
    return !hidden.empty() && (hidden[static_cast<std::size_t>(token / 64)] >> token % 64 & 1) != 0;
  }
};

inline MadeList make_list(const PageShape& shape, Tokens tokens, std::uint64_t seed,
                          Data data = Data::normal) {
  MadeList made{shape, tokens};
  for (Tokens begin = 0; begin < tokens; begin += shape.tokens) {
    const Tokens used = std::min(shape.tokens, tokens - begin);
    const Tensor keys(shape, NumberFormat::fp16, data, seed++);
    const Tensor values(shape, NumberFormat::fp16, data, seed++);
    made.pages.push_back(encode(shape, keys, values, used).page);
    for (const bool side : {false, true}) {
      const auto decoded = decode(shape, made.pages.back(), side, used);
      auto& all = side ? made.values : made.keys;
      all.insert(all.end(), decoded.begin(), decoded.end());
    }
  }
  for (const Page& page : made.pages) made.addresses.push_back(page.data());
  return made;
}

struct MadeQueries {
  Tokens tokens;
  int heads, head_dim;
  NumberFormat number;
  std::vector<std::uint16_t> elements{};
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
  double at(Tokens token, int head, int dim) const {
    const std::uint16_t element =
        elements[static_cast<std::size_t>(token * token_stride() + head * head_dim + dim)];
    return number == NumberFormat::bf16 ? from_bf16(element) : from_fp16(element);
  }
};

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

struct Reference {
  std::vector<double> outputs, log_sum_exp;
};

// Every token of every list, one by one.
inline Reference reference(const MadeQueries& queries, const std::vector<const MadeList*>& lists) {
  Reference result;
  for (Tokens token = 0; token < queries.tokens; ++token)
    for (int head = 0; head < queries.heads; ++head) {
      std::vector<double> logits;
      std::vector<const float*> rows;
      for (const MadeList* list : lists) {
        const int kv_head = head / (queries.heads / list->shape.kv_heads);
        for (Tokens t = 0; t < list->tokens; ++t) {
          if (list->is_hidden(t)) continue;
          if (!queries.positions.empty()) {
            const auto last = queries.positions[static_cast<std::size_t>(token)];
            const auto position = list->positions[static_cast<std::size_t>(t)];
            if (position > last) continue;
            if (queries.window > 0 && position <= last - queries.window) continue;
          }
          const auto at =
              static_cast<std::size_t>((t * list->shape.kv_heads + kv_head) * queries.head_dim);
          double logit = 0;
          for (int d = 0; d < queries.head_dim; ++d)
            logit += queries.at(token, head, d) * list->keys[at + static_cast<std::size_t>(d)];
          logits.push_back(logit / std::sqrt(static_cast<double>(queries.head_dim)));
          rows.push_back(&list->values[at]);
        }
      }
      double maximum = -INFINITY, sum = 0;
      for (const double logit : logits) maximum = std::max(maximum, logit);
      std::vector<double> output(static_cast<std::size_t>(queries.head_dim));
      for (std::size_t t = 0; t < logits.size(); ++t) {
        const double weight = std::exp(logits[t] - maximum);
        sum += weight;
        for (std::size_t d = 0; d < output.size(); ++d) output[d] += weight * rows[t][d];
      }
      for (double value : output) result.outputs.push_back(logits.empty() ? 0 : value / sum);
      result.log_sum_exp.push_back(maximum + std::log(sum));
    }
  return result;
}

// What attention over lists of these formats may be wrong by; see attend().
inline double allowed_error(const std::vector<const MadeList*>& lists) {
  double allowed = kFloatAttentionError;
  for (const MadeList* list : lists)
    for (const NumberFormat number :
         {list->shape.format.key.number, list->shape.format.value.number})
      if (payload_bits(number) < 16 && number != NumberFormat::fp8_e4m3)
        allowed = kIntegerAttentionError;
  return allowed;
}

inline void expect_close(const MadeQueries& queries, const std::vector<const MadeList*>& lists,
                         std::span<const float> partials) {
  const std::int64_t rows = queries.rows();
  std::vector<float> outputs(static_cast<std::size_t>(rows * queries.head_dim)),
      log_sum_exp(static_cast<std::size_t>(rows));
  finish_partials(partials, rows, queries.head_dim, outputs, log_sum_exp);
  const Reference expected = reference(queries, lists);
  const double allowed = allowed_error(lists);
  for (std::int64_t row = 0; row < rows; ++row) {
    double error = 0, size = 0;
    for (int d = 0; d < queries.head_dim; ++d) {
      const auto i = static_cast<std::size_t>(row * queries.head_dim + d);
      error += std::pow(outputs[i] - expected.outputs[i], 2);
      size += std::pow(expected.outputs[i], 2);
    }
    ASSERT_LE(std::sqrt(error), allowed * std::sqrt(size) + 1e-30) << "row " << row;
    const double lse = expected.log_sum_exp[static_cast<std::size_t>(row)];
    const float found = log_sum_exp[static_cast<std::size_t>(row)];
    if (std::isinf(lse)) {
      ASSERT_EQ(found, -INFINITY);
    } else {
      ASSERT_NEAR(found, lse, allowed * (1 + std::abs(lse)));
    }
  }
}

}  // namespace modalkv
