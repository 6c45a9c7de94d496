// A known key bias (Qwen2's k_proj has one): every key of a KV head is RoPE(x + b) = RoPE(x) +
// R(p) b at position p. The second term carries most of the largest channels and is known without
// looking at the page. So pages keep key - R(p) b, and attention adds what the query makes of it,
//
//   q . R(p) b = sum over pairs i of C_i cos(p f_i) + S_i sin(p f_i),
//
// exactly, with C and S computed once for a query row. It belongs to the query as RoPE leaves it:
// where keys are rotated (KvFormat::key_rotation), the bias is subtracted before and this term is
// of the query before its rotation. Keys of 16 bits are stored as they are.
#pragma once

#include <cstdint>
#include <span>

#include "kernels/rope.hpp"

namespace modalkv {

/// Borrows its arrays.
struct KeyBias {
  const float* elements = nullptr;     ///< [kv_heads, head_dim], before RoPE
  const float* frequencies = nullptr;  ///< [head_dim / 2]
  RopeSections sections{};
  int head_dim = 0;

  const float* of_head(int kv_head) const { return elements + std::int64_t{kv_head} * head_dim; }
  /// Of a token's position [axes], by a pair of channels.
  Rotation turn(const std::int32_t* position, int pair) const {
    return rotation(position[sections.axis(pair)], frequencies[pair]);
  }
};

/// R(p) b of one token and KV head, [head_dim]: (b_i cos - b_j sin, b_j cos + b_i sin) of each pair
/// (i, j), every operation rounded to binary32.
void rotated_bias(const KeyBias& bias, int kv_head, const std::int32_t* position,
                  std::span<float> to);

/// C and S of a query row [head_dim], for head_dim / 2 pairs each.
void bias_terms(const KeyBias& bias, int kv_head, std::span<const float> query,
                std::span<float> cosine_terms, std::span<float> sine_terms);

/// q . R(p) b of those terms: what a logit lacks.
float bias_logit(const KeyBias& bias, std::span<const float> cosine_terms,
                 std::span<const float> sine_terms, const std::int32_t* position);

}  // namespace modalkv
