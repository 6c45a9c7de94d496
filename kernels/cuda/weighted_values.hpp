// Values weighted: channels are the M side of tensor core products, query rows the N side, tokens
// the depth. In fragments: element i of lane (g, t) is of channel 2 g + i / 2 of its 16 and of
// query row 2 t + i % 2 of its row tile.
//
// Weights come as fragments of logits and go through shared memory to become operands. Scales of
// tokens are multiplied into them, over the largest power of two of the stage, so that FP16 holds
// them; the products of a stage are then added to the outputs times that power. Zeros are summed
// apart, in binary32.
#pragma once

#include "kernels/cuda/key_logits.hpp"

namespace modalkv::MODALKV_GPU {

template <class Tile>
class WeightedValues {
 public:
  using Value = typename Tile::Value;

  __device__ WeightedValues(const AttendShape& shape, std::byte* weights)
      : format_(shape.page.format.value),
        dims_(shape.page.head_dim),
        factor_(operand_factor_of(format_)),
        weights_(weights) {
    const ElementFormat element = format_.get();
    if (quantization(element) != Quantization::none && element.scale_bytes == 0)
      factor_ *= shape.value_scale;
  }

  /// Adds a stage. `channels`: its metadata, where that is per channel. All lanes.
  __device__ MODALKV_INLINE void add(const std::byte* stage, const std::byte* channels,
                                     const Logits<Tile>& weights) {
    const ElementFormat element = format_.get();
    const bool grouped = has_token_scales(element) && !scales_operands<Value>();
    const int scale_group = element.group > 0 ? element.group : dims_;
    float column_sums[Tile::kRowTiles][2] = {};
    if (element.per_channel) sum_columns(weights, column_sums);
    MODALKV_UNROLL
    for (int group = 0; group < Tile::kValueGroups; ++group) {
      ScalePair scales[Tile::kTiles] = {};
      float unit = 1, inverse = 1;
      if (grouped) {
        const int index =
            Tile::kValueGroups == 1 ? 0 : group * (Tile::kDims / Tile::kValueGroups) / scale_group;
        load_scales(stage + Tile::kValueMetadata +
                        index * kLineRows * (element.scale_bytes + element.zero_bytes),
                    scales, unit, inverse);
        if (element.zero_bytes > 0) add_zeros(scales, weights, zeros_[group]);
      }
      store_weights(weights, scales, grouped, inverse);
      std::uint32_t b[Tile::kWeightTerms][Tile::kTiles][Tile::kRowTiles][2];
      load_weights(b);
      MODALKV_UNROLL
      for (int i = 0; i < kGroupBlocks; ++i)
        add_block(stage, channels, group * kGroupBlocks + i, b, unit * factor_, column_sums);
    }
  }

  /// Everything so far counts `factor` of its column as much.
  __device__ MODALKV_INLINE void shrink(const float (&factors)[Tile::kRowTiles][2]) {
    MODALKV_UNROLL
    for (int n = 0; n < Tile::kRowTiles; ++n) {
      MODALKV_UNROLL
      for (int block = 0; block < Tile::kBlocks; ++block) MODALKV_UNROLL
      for (int i = 0; i < 4; ++i) outputs_[block][n][i] *= factors[n][i % 2];
      MODALKV_UNROLL
      for (int group = 0; group < Tile::kValueGroups; ++group) MODALKV_UNROLL
      for (int i = 0; i < 2; ++i) zeros_[group][n][i] *= factors[n][i];
    }
  }

  /// Ends: zeros come to the outputs. All lanes.
  __device__ void finish() {
    const ElementFormat element = format_.get();
    if (!has_token_scales(element) || element.zero_bytes == 0) return;
    MODALKV_UNROLL
    for (int group = 0; group < Tile::kValueGroups; ++group) MODALKV_UNROLL
    for (int n = 0; n < Tile::kRowTiles; ++n) MODALKV_UNROLL
    for (int column = 0; column < 2; ++column) {
      const float zero = sum_of_column(zeros_[group][n][column]);
      MODALKV_UNROLL
      for (int i = 0; i < kGroupBlocks; ++i) {
        outputs_[group * kGroupBlocks + i][n][column] += zero;
        outputs_[group * kGroupBlocks + i][n][2 + column] += zero;
      }
    }
  }

  /// Of 16 channels.
  __device__ MODALKV_INLINE float output(int block, int row_tile, int i) const {
    return outputs_[block][row_tile][i];
  }

 private:
  static constexpr int kUnit = Tile::kValueUnit;
  static constexpr int kGroupBlocks = Tile::kBlocks / Tile::kValueGroups;
  using Operands = std::uint32_t[Tile::kWeightTerms][Tile::kTiles][Tile::kRowTiles][2];

  __device__ static void sum_columns(const Logits<Tile>& weights,
                                     float (&sums)[Tile::kRowTiles][2]) {
    MODALKV_UNROLL
    for (int n = 0; n < Tile::kRowTiles; ++n) MODALKV_UNROLL
    for (int column = 0; column < 2; ++column)
      sums[n][column] = sum_of_column(weights[0][n][column] + weights[0][n][2 + column]);
  }

  __device__ MODALKV_INLINE void load_scales(const std::byte* metadata,
                                             ScalePair (&scales)[Tile::kTiles], float& unit,
                                             float& inverse) const {
    float most = 0;
    MODALKV_UNROLL
    for (int tile = 0; tile < Tile::kTiles; ++tile) {
      scales[tile] = row_scales(format_, metadata + tile * Tile::kValueMetadataBytes, lane_);
      most = fmaxf(most, fmaxf(scales[tile].first.scale, scales[tile].second.scale));
    }
    const Unit power = power_below(most_of_column(most));
    unit = power.unit;
    inverse = power.inverse;
  }

  __device__ MODALKV_INLINE static void add_zeros(const ScalePair (&scales)[Tile::kTiles],
                                                  const Logits<Tile>& weights,
                                                  float (&zeros)[Tile::kRowTiles][2]) {
    MODALKV_UNROLL
    for (int tile = 0; tile < Tile::kTiles; ++tile) MODALKV_UNROLL
    for (int n = 0; n < Tile::kRowTiles; ++n) MODALKV_UNROLL
    for (int i = 0; i < 4; ++i)
      zeros[n][i % 2] +=
          weights[tile][n][i] * (i < 2 ? scales[tile].first.zero : scales[tile].second.zero);
  }

  // [terms, rows, tokens]: a lane has two neighbours in depth.
  __device__ MODALKV_INLINE void store_weights(const Logits<Tile>& weights,
                                               const ScalePair (&scales)[Tile::kTiles], bool scaled,
                                               float inverse) const {
    __syncwarp();  // all have read those before
    MODALKV_UNROLL
    for (int tile = 0; tile < Tile::kTiles; ++tile) {
      const float first = scaled ? scales[tile].first.scale * inverse : 1.0f;
      const float second = scaled ? scales[tile].second.scale * inverse : 1.0f;
      MODALKV_UNROLL
      for (int n = 0; n < Tile::kRowTiles; ++n) MODALKV_UNROLL
      for (int column = 0; column < 2; ++column) {
        const Terms terms = in_two_terms(format_, weights[tile][n][column] * first,
                                         weights[tile][n][2 + column] * second);
        std::byte* const at =
            weight_row(0, n * 8 + 2 * lane_.t + column) + (tile * 16 + 2 * lane_.g) * 2;
        *reinterpret_cast<std::uint32_t*>(at) = terms.high;
        if (Tile::kWeightTerms == 2)
          *reinterpret_cast<std::uint32_t*>(at + Tile::kRows * Tile::kWeightRowBytes) = terms.low;
      }
    }
    __syncwarp();
  }

  __device__ MODALKV_INLINE void load_weights(Operands& b) const {
    const ElementFormat element = format_.get();
    MODALKV_UNROLL
    for (int term = 0; term < Tile::kWeightTerms; ++term) MODALKV_UNROLL
    for (int step = 0; step < Tile::kTiles; ++step) MODALKV_UNROLL
    for (int n = 0; n < Tile::kRowTiles; ++n) MODALKV_UNROLL
    for (int i = 0; i < 2; ++i) {
      const int pair = 2 * (step % (kUnit / 16)) + i;
      const int token = step / (kUnit / 16) * kUnit + depth_position<kUnit>(element, lane_.t, pair);
      b[term][step][n][i] =
          *reinterpret_cast<const std::uint32_t*>(weight_row(term, n * 8 + lane_.g) + token * 2);
    }
  }

  __device__ std::byte* weight_row(int term, int row) const {
    return weights_ + (term * Tile::kRows + row) * Tile::kWeightRowBytes;
  }

  __device__ MODALKV_INLINE void add_block(const std::byte* stage, const std::byte* channels,
                                           int block, const Operands& b, float factor,
                                           const float (&column_sums)[Tile::kRowTiles][2]) {
    const ElementFormat element = format_.get();
    const int unit_lines = kUnit * payload_bits(element.number) / 32;
    float products[Tile::kRowTiles][4] = {};
    MODALKV_UNROLL
    for (int unit = 0; unit < Tile::kTokens / kUnit; ++unit) {
      std::uint32_t a[kUnit / 16][4];
      load_operands<kUnit>(format_, stage + Tile::kValueLines + block * Tile::kValueBlockBytes,
                           unit * unit_lines, lane_, a);
      if constexpr (scales_operands<Value>())
        scale_operands(stage + Tile::kValueMetadata + block * kLineRows, unit, a);
      MODALKV_UNROLL
      for (int step = 0; step < kUnit / 16; ++step) MODALKV_UNROLL
      for (int term = 0; term < Tile::kWeightTerms; ++term) MODALKV_UNROLL
      for (int n = 0; n < Tile::kRowTiles; ++n)
        multiply(format_, products[n], a[step], b[term][unit * (kUnit / 16) + step][n]);
    }
    Scale scales[2] = {{1, 0}, {1, 0}};
    if (element.per_channel && block * 16 < dims_)
      for (int i = 0; i < 2; ++i)
        scales[i] = channel_scale(element, channels, dims_, block * 16 + 2 * lane_.g + i);
    MODALKV_UNROLL
    for (int n = 0; n < Tile::kRowTiles; ++n) MODALKV_UNROLL
    for (int i = 0; i < 4; ++i) {
      float& output = outputs_[block][n][i];
      output += products[n][i] * (factor * scales[i / 2].scale);
      if (element.per_channel) output += scales[i / 2].zero * column_sums[n][i % 2];
    }
  }

  /// E2M1 operands times the E4M3 scales of their tokens.
  __device__ MODALKV_INLINE void scale_operands(const std::byte* metadata, int unit,
                                                std::uint32_t (&a)[kUnit / 16][4]) const {
    const int token = unit * kUnit + lane_.t * (kUnit / 4);
    const std::byte* const scales = metadata + token / 16 * Tile::kValueMetadataBytes + token % 16;
    MODALKV_UNROLL
    for (int step = 0; step < kUnit / 16; ++step) {
      const std::uint32_t four = *reinterpret_cast<const std::uint32_t*>(scales + 4 * step);
      const std::uint32_t pairs[2] = {operand_scale(__byte_perm(four, 0, 0x4140)),
                                      operand_scale(__byte_perm(four, 0, 0x4342))};
      MODALKV_UNROLL
      for (int i = 0; i < 4; ++i) a[step][i] = simt::mul_f16x2(a[step][i], pairs[i / 2]);
    }
  }

  Value format_;
  int dims_;
  float factor_;
  std::byte* weights_;
  float outputs_[Tile::kBlocks][Tile::kRowTiles][4] = {};
  float zeros_[Tile::kValueGroups][Tile::kRowTiles][2] = {};
  Lane lane_;
};

}  // namespace modalkv::MODALKV_GPU
