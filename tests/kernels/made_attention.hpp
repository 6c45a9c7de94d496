// Partial results held to plain attention in double precision over what the pages decode to.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <span>
#include <vector>

#include "tests/kernels/made_lists.hpp"

namespace modalkv {

struct AttentionError {
  double output = 0, log_sum_exp = 0;
};

// What attention over lists should give, and what attend() states that it may be wrong by.
class ExpectedAttention {
 public:
  ExpectedAttention(const Queries& queries, std::span<const PageList> lists, int head_dim)
      : queries_(queries), lists_(lists), head_dim_(static_cast<std::size_t>(head_dim)) {
    std::vector<reference::DecodedList> decoded;
    for (PageList list : lists) {
      decoded.push_back(reference::decode_list(list));
      if (!lacks_bias(list)) {
        longest_keys_.push_back(longest_keys(decoded.back()));
      } else {
        list.known_bias = {};
        longest_keys_.push_back(longest_keys(reference::decode_list(list)));
      }
    }
    expected_ = reference::attention(queries, decoded, head_dim);
  }

  // Holds partials to it. Returns the largest errors found, as shares of those stated.
  AttentionError check(std::span<const float> partials) const {
    const std::int64_t rows = queries_.tokens * queries_.heads;
    std::vector<float> outputs(expected_.outputs.size()), log_sum_exp(expected_.log_sum_exp.size());
    finish_partials(partials, rows, static_cast<int>(head_dim_), outputs, log_sum_exp);
    AttentionError worst;
    for (std::int64_t row = 0; row < rows; ++row) {
      const auto at = static_cast<std::size_t>(row);
      const AttentionError allowed =
          stated(row / queries_.heads, static_cast<int>(row % queries_.heads));
      double error = 0, size = 0;
      for (std::size_t i = at * head_dim_; i < (at + 1) * head_dim_; ++i) {
        error += std::pow(outputs[i] - expected_.outputs[i], 2);
        size += std::pow(expected_.outputs[i], 2);
      }
      const double share = std::sqrt(error) / (allowed.output * std::sqrt(size) + 1e-30);
      EXPECT_LE(share, 1) << "of the error of row " << row;
      worst.output = std::max(worst.output, share);
      const double lse = expected_.log_sum_exp[at];
      if (std::isinf(lse)) {
        EXPECT_EQ(log_sum_exp[at], -INFINITY);
        continue;
      }
      EXPECT_NEAR(log_sum_exp[at], lse, allowed.log_sum_exp) << "row " << row;
      worst.log_sum_exp =
          std::max(worst.log_sum_exp, std::abs(log_sum_exp[at] - lse) / allowed.log_sum_exp);
    }
    return worst;
  }

 private:
  // Of each KV head.
  std::vector<double> longest_keys(const reference::DecodedList& list) const {
    std::vector<double> longest(static_cast<std::size_t>(list.kv_heads));
    for (std::size_t i = 0; i < list.keys.size(); i += head_dim_) {
      double square = 0;
      for (std::size_t d = i; d < i + head_dim_; ++d) square += list.keys[d] * list.keys[d];
      double& most = longest[i / head_dim_ % longest.size()];
      most = std::max(most, std::sqrt(square));
    }
    return longest;
  }

  AttentionError stated(Tokens query, int head) const {
    const std::vector<double> row =
        reference::query_row(queries_, query, head, static_cast<int>(head_dim_));
    double largest = 0;
    for (const double element : row) largest = std::max(largest, std::abs(element));
    AttentionError most;
    for (std::size_t l = 0; l < lists_.size(); ++l) {
      const PageList& list = lists_[l];
      const int kv_head = head / (queries_.heads / list.shape.kv_heads);
      const double bias = kKnownBiasError * bias_reach(list, kv_head, row);
      const double logit = largest * longest_keys_[l][static_cast<std::size_t>(kv_head)];
      const bool integers = has_integers(list);
      most.output =
          std::max(most.output, bias + (integers ? kIntegerAttentionError : kFloatAttentionError));
      most.log_sum_exp = std::max(
          most.log_sum_exp,
          bias + kFloatAttentionError + (integers ? kIntegerLogitError : kFloatLogitError) * logit);
    }
    return most;
  }

  static bool has_integers(const PageList& list) {
    for (const ElementFormat& format : {list.shape.format.key, list.shape.format.value})
      if (payload_bits(format.number) < 16 && format.number != NumberFormat::fp8_e4m3) return true;
    return false;
  }
  // The most that a known bias can add to a logit.
  static double bias_reach(const PageList& list, int kv_head, const std::vector<double>& row) {
    if (!lacks_bias(list)) return 0;
    const float* bias = list.known_bias.bias->of_head(kv_head);
    const std::size_t half = row.size() / 2;
    double sum = 0;
    for (std::size_t i = 0; i < half; ++i)
      sum += std::hypot(row[i], row[i + half]) * std::hypot(bias[i], bias[i + half]);
    return sum;
  }

  Queries queries_;
  std::span<const PageList> lists_;
  std::size_t head_dim_;
  std::vector<std::vector<double>> longest_keys_;  // of each list and KV head, as pages hold them
  reference::Attention expected_;
};

inline void expect_close(const Queries& queries, std::span<const PageList> lists, int head_dim,
                         std::span<const float> partials) {
  ExpectedAttention(queries, lists, head_dim).check(partials);
}

}  // namespace modalkv
