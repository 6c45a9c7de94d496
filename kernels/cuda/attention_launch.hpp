// Attention on a GPU: what Attend, Merge, Finish and Score of kernels/effects.cpp mean, in kernels.
//
// These pairs of K and V formats have kernels of their own, for head_dim 64, 128 and 256 and one to
// eight query rows of a KV head (decoding) or more (chunks of a prefill):
//
//   fp16 / fp16          int4 token-head / same         int2 g64 / same
//   bf16 / bf16          int4 g64 / same                nvfp4 / same
//   fp8 e4m3 / same      int4 g32 / same                mxfp4 / same
//   int8 / int8          int8 / int4, token-head        int4 per channel / int4 token-head
//
// with scales and zeros in FP16 where integers have them; a group of at least head_dim elements is
// token-head. Keys may be rotated. Every other format that a page can have goes through the general
// kernel: slower, as exact (attend_is_general).
//
// Head dimensions in between are padded: to 64, 128 or 256 in computing, not in memory traffic.
//
// Errors are those that attend() states (kernels/attention.hpp): kFloatAttentionError and
// kFloatLogitError for 16-bit and E4M3 numbers, kIntegerAttentionError and kIntegerLogitError for
// others, kKnownBiasError for a known bias. Where they come from:
//   - Codes, E4M3 and E2M1 numbers are exact in FP16, and 16-bit numbers are operands as they are.
//   - A query row is brought to [2^14, 2^15) by a power of two; its FP16 operands are then exact
//     within 2^-40 of its largest element. What is rotated, folded with a channel's scales, or FP16
//     beside BF16 keys goes in two terms: 2^-22 of an element, 2^-17 in BF16.
//   - Weights are in [0, 2^14]. In two terms (16-bit and E4M3 values) they are exact within 2^-22,
//     2^-17 beside BF16 values; in one term (others) within kOneTermWeightError. Codes are centred,
//     so that a zero's large part is not weighed with that error.
//   - Sums are binary32, those of tensor cores cut off and not rounded: 2^-23 a step, head_dim / 16
//     steps a logit; sums of values begin anew every 16 or 32 tokens.
#pragma once

#include <span>

#include "kernels/cuda/gpu_launch.hpp"

namespace modalkv {

/// Relative error of one weight that is one FP16 operand, at most.
inline constexpr double kOneTermWeightError = 0x1p-11;

}  // namespace modalkv

namespace modalkv::MODALKV_GPU {

/// Operations that touch nothing of each other's results. Neighbours that differ only in addresses
/// and in `tokens` become one launch. Parts of the work merge through launch.scratch; with less of
/// it there are fewer parts. Status::rejected as perform() has it, and also where a listed page is
/// not aligned to 16 bytes.
GpuError launch_attend(std::span<const Attend> ops, SpaceMemory memory, const GpuLaunch& launch);

GpuError launch_merge(const Merge& merge, SpaceMemory memory, const GpuLaunch& launch);
GpuError launch_finish(const Finish& finish, SpaceMemory memory, const GpuLaunch& launch);

/// Leaves op.scratch alone. Errors as kernels/token_scores.hpp states them.
GpuError launch_score(const Score& score, SpaceMemory memory, const GpuLaunch& launch);

/// Whether the general kernel attends to pages of this shape.
bool attend_is_general(const PageShape& shape);

}  // namespace modalkv::MODALKV_GPU
