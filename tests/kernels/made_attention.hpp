// Partial results held to plain attention in double precision over what the pages decode to.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <span>
#include <vector>

#include "tests/kernels/made_lists.hpp"

namespace modalkv {

// What attention over lists of these formats may be wrong by; see attend().
inline double allowed_error(std::span<const PageList> lists) {
  double allowed = kFloatAttentionError;
  for (const PageList& list : lists)
    for (const NumberFormat number : {list.shape.format.key.number, list.shape.format.value.number})
      if (payload_bits(number) < 16 && number != NumberFormat::fp8_e4m3)
        allowed = kIntegerAttentionError;
  return allowed;
}

inline void expect_close(const Queries& queries, std::span<const PageList> lists, int head_dim,
                         std::span<const float> partials) {
  const std::int64_t rows = queries.tokens * queries.heads;
  std::vector<float> outputs(static_cast<std::size_t>(rows * head_dim)),
      log_sum_exp(static_cast<std::size_t>(rows));
  finish_partials(partials, rows, head_dim, outputs, log_sum_exp);
  std::vector<reference::DecodedList> decoded;
  for (const PageList& list : lists) decoded.push_back(reference::decode_list(list));
  const reference::Attention expected = reference::attention(queries, decoded, head_dim);
  const double allowed = allowed_error(lists);
  for (std::int64_t row = 0; row < rows; ++row) {
    double error = 0, size = 0;
    for (int d = 0; d < head_dim; ++d) {
      const auto i = static_cast<std::size_t>(row * head_dim + d);
      error += std::pow(outputs[i] - expected.outputs[i], 2);
      size += std::pow(expected.outputs[i], 2);
    }
    ASSERT_LE(std::sqrt(error), allowed * std::sqrt(size) + 1e-30) << "row " << row;
    const double lse = expected.log_sum_exp[static_cast<std::size_t>(row)];
    const float found = log_sum_exp[static_cast<std::size_t>(row)];
    if (std::isinf(lse)) {
      ASSERT_EQ(found, -INFINITY);
    } else {
      ASSERT_NEAR(found, lse, allowed * (1 + std::abs(lse))) << "row " << row;
    }
  }
}

}  // namespace modalkv
