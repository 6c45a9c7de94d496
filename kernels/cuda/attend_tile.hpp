// The sizes of an attention kernel: what a warp holds in registers and a block in shared memory.
//
// Warps are on their own: each walks its part of the tokens through a ring of two stages, with its
// own maxima, sums and outputs, and meets the others only at the end. So one stage's copies are in
// flight while the other is computed on, and nothing waits at a barrier.
#pragma once

#include "kernels/cuda/element_traits.hpp"
#include "kernels/cuda/gpu_launch.hpp"

namespace modalkv::MODALKV_GPU {

/// `K`, `V`: FixedFormat or AnyFormat. `dims`: head_dim, padded. `row_tiles`: of 8 query rows each.
template <class K, class V, int dims, int row_tiles>
struct AttendTile {
  using Key = K;
  using Value = V;
  static constexpr bool kFixed = K::kFixed && V::kFixed;
  static constexpr int kDims = dims, kRowTiles = row_tiles, kRows = 8 * row_tiles;
  static constexpr int kSteps = dims / 16;   ///< operands of a key
  static constexpr int kBlocks = dims / 16;  ///< of 16 channels of values
  static constexpr int kKeyBits = payload_bits(K::kElement.number);
  static constexpr int kValueBits = payload_bits(V::kElement.number);

  /// Tiles of 16 tokens of a stage: two where they are small, so that a word of V is used whole.
  static constexpr bool kSmall = 2 * dims * (kKeyBits + kValueBits) <= 3072;
  static constexpr int kTiles =
      kFixed && kSmall && row_tiles <= 2 && !K::kElement.per_channel ? 2 : 1;
  static constexpr int kTokens = 16 * kTiles;

  static constexpr int kKeyUnit = depth_unit<K>(dims);
  static constexpr int kValueUnit = depth_unit<V>(kTokens);
  static constexpr int kKeyGroups = scaled_groups<K>(dims);
  static constexpr int kValueGroups = scaled_groups<V>(dims);
  /// Operand words that a weight becomes.
  static constexpr int kWeightTerms =
      !V::kFixed || kValueBits == 16 || V::kElement.number == NumberFormat::fp8_e4m3 ? 2 : 1;

  // A stage, in bytes.
  static constexpr int kKeyTileBytes = 2 * dims * kKeyBits;
  static constexpr int kValueBlockBytes = kTiles * 32 * kValueBits;
  static constexpr int kKeyMetadataBytes = most_metadata_bytes<K>(dims);
  static constexpr int kValueMetadataBytes = most_metadata_bytes<V>(dims);
  static constexpr int kKeyLines = 0;
  static constexpr int kValueLines = kKeyLines + kTiles * kKeyTileBytes;
  static constexpr int kKeyMetadata = kValueLines + kBlocks * kValueBlockBytes;
  static constexpr int kValueMetadata = kKeyMetadata + kTiles * kKeyMetadataBytes;
  static constexpr int kStageBytes = kValueMetadata + kTiles * kValueMetadataBytes;
  static constexpr int kStages = 2;

  // What a warp has beside its stages: weights as operands [terms, rows, tokens], queries folded
  // with the scales of channels [2 terms, operands].
  static constexpr int kWeightRowBytes = 2 * kTokens + 16;
  static constexpr int kWeightBytes = kWeightTerms * kRows * kWeightRowBytes;
  static constexpr int kQueryWords = row_tiles * kSteps * 32 * 2;  ///< of a term
  static constexpr bool kFoldsQueries = !K::kFixed || K::kElement.per_channel;
  static constexpr int kFoldedBytes = kFoldsQueries ? 2 * kQueryWords * 4 : 0;
  static constexpr int kWarpBytes = kStages * kStageBytes + kWeightBytes + kFoldedBytes;

  // What the block shares: queries as operands, their sums over groups, what a row needs.
  static constexpr int kQueryBytes = 2 * kQueryWords * 4;
  static constexpr int kQuerySumBytes = kKeyGroups * kRows * 4;
  static constexpr int kRowBytes = kRows * 16;
  static constexpr int kSharedBytes = kQueryBytes + kQuerySumBytes + kRowBytes;

  // Where pages leave out a bias: terms of the rows [pairs, rows] and frequencies, and for each
  // warp what the bias adds to the logits of a stage [tokens, rows].
  static constexpr int kBiasTermBytes = dims / 2 * kRows * 8;
  static constexpr int kBiasFrequencyBytes = dims / 2 * 8;
  static constexpr int kBiasLogitBytes = kTokens * kRows * 4;

  /// Warps of a block: four, or fewer where all together are more than any GPU gives a block.
  static constexpr int kMostBytes = 99 << 10;
  static constexpr int kWarps = [] {
    const auto bytes = [](int warps) {
      const bool lacks_bias = !K::kFixed || kKeyBits < 16;
      return warps * kWarpBytes + kSharedBytes +
             (lacks_bias ? kBiasTermBytes + kBiasFrequencyBytes + warps * kBiasLogitBytes : 0);
    };
    int warps = 4;
    while (warps > 1 && bytes(warps) > kMostBytes) warps /= 2;
    return warps;
  }();
  static constexpr int kThreads = 32 * kWarps;

  /// Blocks that registers must leave room for: 12 warps; 8 with long outputs or many groups.
  static constexpr bool kLong = dims == 256 || kValueGroups > 2;
  static constexpr int kLeastBlocks = !kFixed || row_tiles > 1 ? 1 : (kLong ? 8 : 12) / kWarps;

  // The warps' memory serves before and after as floats: the queries [rows, dims]; outputs, maxima
  // and sums of the warps.
  static constexpr int kFloatBytes = kRows * dims * 4 + 2 * kWarps * kRows * 4;
  static constexpr int kOwnBytes = kWarps * kWarpBytes;
  static constexpr int kWarpsBytes = kOwnBytes > kFloatBytes ? kOwnBytes : kFloatBytes;

  static constexpr int kBiasTerms = kSharedBytes + kWarpsBytes;
  static constexpr int kBiasFrequencies = kBiasTerms + kBiasTermBytes;
  static constexpr int kBiasLogits = kBiasFrequencies + kBiasFrequencyBytes;

  static constexpr int dynamic_bytes(bool lacks_bias) {
    return lacks_bias ? kBiasLogits + kWarps * kBiasLogitBytes : kBiasTerms;
  }

  /// Blocks of a multiprocessor that work is divided among: what registers and 160 KiB of shared
  /// memory hold at once, so that none waits for another to end.
  static constexpr int kWantedBlocks = [] {
    const int by_registers = kLeastBlocks > 1 ? kLeastBlocks : 8 / kWarps;
    const int by_memory = (160 << 10) / dynamic_bytes(false);
    return by_memory < 1 ? 1 : by_memory < by_registers ? by_memory : by_registers;
  }();

  static_assert(kKeyGroups == 1 || dims % (kKeyUnit * kKeyGroups) == 0);
  static_assert(kBlocks % kValueGroups == 0);
};

}  // namespace modalkv::MODALKV_GPU
