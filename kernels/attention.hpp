// Attention of 16-bit queries over pages, straight from the packed bytes: page lists of any mix of
// formats, grouped queries, causal chunks and sliding windows. The result is a partial that merges
// exactly with partials of other pages, wherever they were computed.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "kernels/page_codec.hpp"
#include "kernels/quantizer.hpp"

namespace modalkv {

/// 16-bit queries [tokens, heads, head_dim]; head_dim is contiguous. Heads [g q, g (q + 1)) of the
/// group size g share KV head q.
struct Queries {
  const std::uint16_t* elements = nullptr;
  NumberFormat number = NumberFormat::fp16;  ///< fp16 or bf16
  Tokens tokens = 1;
  int heads = 1;
  std::int64_t token_stride = 0, head_stride = 0;  ///< in elements
  float scale = 1;                                 ///< of logits, mostly 1 / sqrt(head_dim)
  /// Of each query token. Empty: all KV is visible to it, as in decoding.
  std::span<const std::int32_t> positions{};
  /// Where there are positions: only KV at the last `window` positions is visible; 0: all before.
  std::int32_t window = 0;
};

/// Pages of one shape. All but the last are full.
struct PageList {
  PageShape shape{};
  TensorScales scales{};
  std::span<const std::byte* const> pages{};
  Tokens tokens = 0;  ///< in all pages
  /// Of each token. May be empty where the queries have none.
  std::span<const std::int32_t> positions{};
  /// A bit a token, 64 a word: set where it must not be attended to. May be empty.
  std::span<const std::uint64_t> hidden{};
  /// What keys of fewer than 16 bits were encoded without, and where its tokens stand for RoPE.
  KnownBias known_bias{};
};

/// Whether logits over these pages lack a known bias.
inline bool lacks_bias(const PageList& list) {
  return list.known_bias.bias != nullptr &&
         quantization(list.shape.format.key) != Quantization::none;
}

/// The attention of one query row over some tokens, before division: exp(logit - maximum) weighs.
/// In memory: head_dim outputs, the maximum, the sum (modalkv/op.hpp, partial_bytes).
struct PartialRow {
  std::span<float> output;
  float* maximum;
  float* sum;
};

inline PartialRow partial_row(std::span<float> partials, std::int64_t row, int head_dim) {
  const auto at = static_cast<std::size_t>(row * (head_dim + 2));
  const auto dim = static_cast<std::size_t>(head_dim);
  return {partials.subspan(at, dim), &partials[at + dim], &partials[at + dim + 1]};
}

/// What attend() may be wrong by; what each is relative to is said there.
inline constexpr double kFloatAttentionError = 1e-4;
inline constexpr double kFloatLogitError = 1e-5;
/// Queries and weights are rounded to 15 bits of their largest.
inline constexpr double kIntegerAttentionError = 3e-3;
inline constexpr double kIntegerLogitError = 1.5e-4;
inline constexpr double kKnownBiasError = 5e-7;

/// No tokens: the neutral element of merging.
void clear_partials(std::span<float> partials, std::int64_t rows, int head_dim);

/// Adds attention over `list` to the partials of the query rows [tokens, heads] that belong to KV
/// heads [first_kv_head, end_kv_head). Callers split work over heads, and over tokens by lists with
/// partials of their own.
///
/// Against double precision over the decoded values:
///   - the relative L2 error of an output row stays below kFloatAttentionError;
///   - the error of log-sum-exp stays below kFloatAttentionError (of a sum of many) and
///     kFloatLogitError times q k: q the largest element of the scaled query, k the length of the
///     longest key as its page holds it.
/// This is for 16-bit and E4M3 numbers; with any others kIntegerAttentionError is the output's and
/// kIntegerLogitError takes the place of kFloatLogitError. Rotated keys (KvFormat::key_rotation)
/// change nothing. A known bias, which pages leave out, adds to both errors kKnownBiasError times
/// the most that it can add to a logit: the sum over pairs of channels of |query| |bias|.
/// Allocates nothing; different heads or partials may be worked on by different threads.
void attend(const Queries& queries, const PageList& list, int first_kv_head, int end_kv_head,
            std::span<float> partials);

/// The kernel that attend() runs on this processor.
std::string_view attention_target();

/// Merges partials of the same rows, `parts` of them one after another, into `to` (apart from
/// them).
void merge_partials(std::span<const float> partials, std::int64_t parts, std::int64_t rows,
                    int head_dim, std::span<float> to);

/// The attention's output rows [rows, head_dim] and, where wanted (not empty), the logarithm of
/// their sums of exponentials. A row without visible tokens gives zeros and minus infinity.
void finish_partials(std::span<const float> partials, std::int64_t rows, int head_dim,
                     std::span<float> outputs, std::span<float> log_sum_exp);
/// The same with outputs rounded to 16-bit numbers, nearest, ties to even.
void finish_partials(std::span<const float> partials, std::int64_t rows, int head_dim,
                     NumberFormat number, std::span<std::uint16_t> outputs,
                     std::span<float> log_sum_exp);

}  // namespace modalkv
