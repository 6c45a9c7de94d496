// Attention in double precision over decoded values, naive on purpose: one row, one token, one
// element after another, every logit kept. It shares no code with the kernels, only their types.
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <span>
#include <vector>

#include "kernels/attention.hpp"
#include "tests/kernels/reference_page.hpp"

namespace modalkv::reference {

/// Keys of one token [kv_heads, head_dim] before their block Hadamard rotation and with the bias
/// that their page leaves out.
inline void restore_keys(const PageList& list, Tokens token, double* keys) {
  const PageShape& shape = list.shape;
  if (shape.format.key.number == NumberFormat::fp16 ||
      shape.format.key.number == NumberFormat::bf16)
    return;
  for (int head = 0; head < shape.kv_heads; ++head, keys += shape.head_dim) {
    std::vector<double> key(keys, keys + shape.head_dim);
    if (const int order = shape.format.key_rotation; order > 0)
      for (int d = 0; d < shape.head_dim; ++d) {
        double sum = 0;
        for (int e = 0; e < order; ++e)
          sum += (std::popcount(static_cast<unsigned>(d % order & e)) % 2 == 0 ? 1.0 : -1.0) *
                 keys[d / order * order + e];
        key[static_cast<std::size_t>(d)] = sum / std::sqrt(order);
      }
    if (const KeyBias* bias = list.known_bias.bias) {
      const int axes = bias->sections.axes(), half = shape.head_dim / 2;
      const float* b = bias->elements + head * shape.head_dim;
      for (int i = 0; i < half; ++i) {
        const double angle =
            double{bias->frequencies[i]} *
            list.known_bias
                .positions[static_cast<std::size_t>(token * axes + bias->sections.axis(i))];
        key[static_cast<std::size_t>(i)] += b[i] * std::cos(angle) - b[i + half] * std::sin(angle);
        key[static_cast<std::size_t>(i + half)] +=
            b[i + half] * std::cos(angle) + b[i] * std::sin(angle);
      }
    }
    std::copy(key.begin(), key.end(), keys);
  }
}

/// What a list of pages decodes to.
struct DecodedList {
  int kv_heads = 1, head_dim = 0;
  Tokens tokens = 0;
  std::vector<double> keys{}, values{};  ///< [tokens, kv_heads, head_dim]
  std::vector<std::int32_t> positions{};
  std::vector<bool> hidden{};  ///< of each token; empty: none
};

inline DecodedList decode_list(const PageList& list) {
  DecodedList decoded{list.shape.kv_heads, list.shape.head_dim, list.tokens};
  const auto elements =
      static_cast<std::size_t>(list.tokens * list.shape.kv_heads * list.shape.head_dim);
  for (const std::byte* address : list.pages) {
    const PageReader page(list.shape, {address, static_cast<std::size_t>(page_bytes(list.shape))});
    for (const bool side : {false, true}) {
      const auto part = page.decoded(side, side ? list.scales.value : list.scales.key);
      auto& all = side ? decoded.values : decoded.keys;
      all.insert(all.end(), part.begin(), part.end());
    }
  }
  decoded.keys.resize(elements);  // a list may end within its last page
  decoded.values.resize(elements);
  for (Tokens token = 0; token < list.tokens; ++token)
    restore_keys(
        list, token,
        &decoded.keys[static_cast<std::size_t>(token * list.shape.kv_heads * list.shape.head_dim)]);
  decoded.positions.assign(list.positions.begin(), list.positions.end());
  if (!list.hidden.empty())
    for (Tokens token = 0; token < list.tokens; ++token)
      decoded.hidden.push_back(
          (list.hidden[static_cast<std::size_t>(token / 64)] >> token % 64 & 1) != 0);
  return decoded;
}

/// Whether a query token may attend to a token of the list.
inline bool sees(const Queries& queries, Tokens query, const DecodedList& list, Tokens token) {
  if (!list.hidden.empty() && list.hidden[static_cast<std::size_t>(token)]) return false;
  if (queries.positions.empty()) return true;
  const std::int64_t now = queries.positions[static_cast<std::size_t>(query)];
  const std::int64_t then = list.positions[static_cast<std::size_t>(token)];
  return then <= now && (queries.window == 0 || now - then < queries.window);
}

/// One query row, scaled as its logits are.
inline std::vector<double> query_row(const Queries& queries, Tokens query, int head, int head_dim) {
  const std::uint16_t* from =
      queries.elements + query * queries.token_stride + head * queries.head_stride;
  std::vector<double> row;
  for (int d = 0; d < head_dim; ++d)
    row.push_back(number_16bit(queries.number, from[d]) * double{queries.scale});
  return row;
}

struct Logit {
  double value = 0;
  double magnitude = 0;  ///< sum of its terms' magnitudes: bounds rounding in any order
};

inline Logit logit(std::span<const double> row, const DecodedList& list, int kv_head,
                   Tokens token) {
  const double* key =
      &list.keys[static_cast<std::size_t>((token * list.kv_heads + kv_head) * list.head_dim)];
  Logit sum;
  for (const double element : row) {
    const double term = element * *key++;
    sum.value += term;
    sum.magnitude += std::abs(term);
  }
  return sum;
}

/// Of rows [tokens, heads] of the queries.
struct Attention {
  std::vector<double> outputs;      ///< [rows, head_dim]; zeros where nothing is visible
  std::vector<double> log_sum_exp;  ///< minus infinity where nothing is visible
  /// [rows, tokens of all lists, one list after another]: 0 where not visible.
  std::vector<double> probabilities;
};

inline Attention attention(const Queries& queries, std::span<const DecodedList> lists,
                           int head_dim) {
  Attention result;
  for (Tokens query = 0; query < queries.tokens; ++query)
    for (int head = 0; head < queries.heads; ++head) {
      const std::vector<double> row = query_row(queries, query, head, head_dim);
      double maximum = -INFINITY, sum = 0;
      std::vector<double> weights;
      for (const DecodedList& list : lists)
        for (Tokens token = 0; token < list.tokens; ++token) {
          weights.push_back(
              sees(queries, query, list, token)
                  ? logit(row, list, head / (queries.heads / list.kv_heads), token).value
                  : -INFINITY);
          maximum = std::max(maximum, weights.back());
        }
      for (double& weight : weights) {
        weight = weight == -INFINITY ? 0 : std::exp(weight - maximum);
        sum += weight;
      }
      if (sum > 0)
        for (double& weight : weights) weight /= sum;
      std::vector<double> output(static_cast<std::size_t>(head_dim));
      std::size_t weight = 0;
      for (const DecodedList& list : lists) {
        const int kv_head = head / (queries.heads / list.kv_heads);
        for (Tokens token = 0; token < list.tokens; ++token, ++weight)
          for (int d = 0; d < head_dim; ++d)
            output[static_cast<std::size_t>(d)] +=
                weights[weight] * list.values[static_cast<std::size_t>(
                                      (token * list.kv_heads + kv_head) * head_dim + d)];
      }
      result.outputs.insert(result.outputs.end(), output.begin(), output.end());
      result.log_sum_exp.push_back(maximum + std::log(sum));
      result.probabilities.insert(result.probabilities.end(), weights.begin(), weights.end());
    }
  return result;
}

}  // namespace modalkv::reference
