// Logits of the tokens of a stage: keys are the M side of tensor core products, query rows the N
// side. In fragments: element i of lane (g, t) is of token 2 g + i / 2 of its tile and of query
// row 2 t + i % 2 of its row tile.
//
// Scales of groups come in after a group's products, a row of the fragment each; of E2M1 with E4M3
// scales already as operands, where they are exact. Scales of channels are folded into the queries
// once a group of tokens of a page.
#pragma once

#include "kernels/cuda/page_stream.hpp"
#include "kernels/cuda/query_tile.hpp"

namespace modalkv::MODALKV_GPU {

template <class Tile>
using Logits = float[Tile::kTiles][Tile::kRowTiles][4];

/// Query operands of one warp: the block's, or folded with the scales of channels.
template <class Tile>
class QueryOperands {
 public:
  __device__ QueryOperands(const QueryTile<Tile>& queries, const AttendShape& shape,
                           std::byte* folded)
      : queries_(queries),
        shape_(shape),
        format_(shape.page.format.key),
        folded_(reinterpret_cast<std::uint32_t*>(folded)) {}

  __device__ bool folds() const { return Tile::kFoldsQueries && format_.get().per_channel; }

  /// Before the products with a tile whose channels' metadata begins there. All lanes.
  __device__ void fold(const std::byte* metadata) {
    if (metadata == metadata_) return;
    metadata_ = metadata;
    const ElementFormat element = format_.get();
    const int dims = shape_.page.head_dim;
    // A lane's operands are of all channels together with its three neighbours'.
    float most = 0;
    for_each_pair(0, [&](int, int channel) {
      for (int d = channel; d < channel + 2; ++d)
        if (d < dims) most = fmaxf(most, channel_scale(element, metadata, dims, d).scale);
    });
    for (int lanes = 1; lanes < 4; lanes *= 2)
      most = fmaxf(most, __shfl_xor_sync(~0u, most, lanes));
    const Unit unit = power_below(most);
    unit_ = unit.unit;
    for (int tile = 0; tile < Tile::kRowTiles; ++tile) {
      float fixed = 0;
      for_each_pair(tile, [&](int word, int channel) {
        Scale scales[2] = {{0, 0}, {0, 0}};
        for (int d = 0; d < 2; ++d)
          if (channel + d < dims) scales[d] = channel_scale(element, metadata, dims, channel + d);
        const std::uint32_t high = queries_.words(0)[word], low = queries_.words(1)[word];
        const float first = simt::low_f16(high) + simt::low_f16(low);
        const float second = simt::high_f16(high) + simt::high_f16(low);
        fixed += first * scales[0].zero + second * scales[1].zero;
        const Terms terms = in_two_terms(format_, first * (scales[0].scale * unit.inverse),
                                         second * (scales[1].scale * unit.inverse));
        folded_[word] = terms.high;
        folded_[Tile::kQueryWords + word] = terms.low;
      });
      for (int lanes = 1; lanes < 4; lanes *= 2) fixed += __shfl_xor_sync(~0u, fixed, lanes);
      // From the lanes of row g to those of the fragments' columns.
      for (int column = 0; column < 2; ++column) {
        const int row = 2 * lane_.t + column;
        fixed_[tile][column] =
            __shfl_sync(~0u, fixed, 4 * row) * queries_.row(tile * 8 + row).sum_factor;
      }
    }
  }

  __device__ MODALKV_INLINE void load(int term, int tile, int step,
                                      std::uint32_t (&words)[2]) const {
    const int at = ((tile * Tile::kSteps + step) * 32 + lane_.index) * 2;
    const std::uint32_t* const from =
        folds() ? folded_ + term * Tile::kQueryWords : queries_.words(term);
    const uint2 pair = *reinterpret_cast<const uint2*>(from + at);
    words[0] = pair.x;
    words[1] = pair.y;
  }

  __device__ int terms() const { return queries_.terms(); }
  /// Of what was folded: the factor of products, and what zeros add to the logits of a column.
  __device__ float unit() const { return unit_; }
  __device__ float fixed(int tile, int column) const { return fixed_[tile][column]; }

 private:
  // use(word, channel) for the operand words of this lane, each of a channel and the next.
  template <class Use>
  __device__ void for_each_pair(int tile, Use use) const {
    constexpr int unit = Tile::kKeyUnit;
    for (int step = 0; step < Tile::kSteps; ++step)
      for (int i = 0; i < 2; ++i) {
        const int pair = 2 * (step % (unit / 16)) + i;
        use(((tile * Tile::kSteps + step) * 32 + lane_.index) * 2 + i,
            step / (unit / 16) * unit + depth_position<unit>(format_.get(), lane_.t, pair));
      }
  }

  const QueryTile<Tile>& queries_;
  const AttendShape& shape_;
  typename Tile::Key format_;
  std::uint32_t* folded_;
  const std::byte* metadata_ = nullptr;
  float unit_ = 1, fixed_[Tile::kRowTiles][2] = {};
  Lane lane_;
};

/// E2M1 operands times the E4M3 scales of their tokens.
template <class Tile>
__device__ MODALKV_INLINE void scale_key_operands(const std::byte* metadata, int unit,
                                                  const Lane& lane,
                                                  std::uint32_t (&a)[Tile::kKeyUnit / 16][4]) {
  const int group = (unit * Tile::kKeyUnit + lane.t * (Tile::kKeyUnit / 4)) / 16;
  const std::uint32_t two =
      *reinterpret_cast<const std::uint16_t*>(metadata + group * 16 + lane.g * 2);
  const std::uint32_t scales[2] = {operand_scale(__byte_perm(two, 0, 0x4040)),
                                   operand_scale(__byte_perm(two, 0, 0x4141))};
  MODALKV_UNROLL
  for (int step = 0; step < Tile::kKeyUnit / 16; ++step) MODALKV_UNROLL
  for (int i = 0; i < 4; ++i) a[step][i] = simt::mul_f16x2(a[step][i], scales[i % 2]);
}

/// Logits over the keys of a stage.
template <class Tile>
__device__ MODALKV_INLINE void compute_logits(const typename Tile::Key& format,
                                              const QueryTile<Tile>& rows,
                                              const QueryOperands<Tile>& queries, int dims,
                                              const std::byte* stage, const Lane& lane,
                                              Logits<Tile>& logits) {
  constexpr int kUnit = Tile::kKeyUnit, kGroups = Tile::kKeyGroups;
  constexpr int kUnits = Tile::kDims / kUnit / kGroups;
  const ElementFormat element = format.get();
  const int unit_lines = kUnit * payload_bits(element.number) / 32;
  const int scale_group = element.group > 0 ? element.group : dims;
  const bool grouped = has_token_scales(element) && !scales_operands<typename Tile::Key>();

  MODALKV_UNROLL
  for (int tile = 0; tile < Tile::kTiles; ++tile) MODALKV_UNROLL
  for (int n = 0; n < Tile::kRowTiles; ++n) MODALKV_UNROLL
  for (int i = 0; i < 4; ++i) logits[tile][n][i] = 0;

  MODALKV_UNROLL_SOME
  for (int group = 0; group < kGroups; ++group) {
    Logits<Tile> products = {};
    MODALKV_UNROLL_SOME
    for (int u = 0; u < kUnits; ++u) {
      const int unit = group * kUnits + u;
      std::uint32_t a[Tile::kTiles][kUnit / 16][4];
      MODALKV_UNROLL
      for (int tile = 0; tile < Tile::kTiles; ++tile) {
        load_operands<kUnit>(format, stage + Tile::kKeyLines + tile * Tile::kKeyTileBytes,
                             unit * unit_lines, lane, a[tile]);
        if constexpr (scales_operands<typename Tile::Key>())
          scale_key_operands<Tile>(stage + Tile::kKeyMetadata + tile * Tile::kKeyMetadataBytes,
                                   unit, lane, a[tile]);
      }
      for (int term = 0; term < queries.terms(); ++term) MODALKV_UNROLL
      for (int step = 0; step < kUnit / 16; ++step) MODALKV_UNROLL
      for (int n = 0; n < Tile::kRowTiles; ++n) {
        std::uint32_t b[2];
        queries.load(term, n, unit * (kUnit / 16) + step, b);
        MODALKV_UNROLL
        for (int tile = 0; tile < Tile::kTiles; ++tile)
          multiply(format, products[tile][n], a[tile][step], b);
      }
    }
    MODALKV_UNROLL
    for (int tile = 0; tile < Tile::kTiles; ++tile) {
      ScalePair scales{{1, 0}, {1, 0}};
      if (grouped) {
        const int index = kGroups == 1 ? 0 : group * (Tile::kDims / kGroups) / scale_group;
        scales = row_scales(format,
                            stage + Tile::kKeyMetadata + tile * Tile::kKeyMetadataBytes +
                                index * kLineRows * (element.scale_bytes + element.zero_bytes),
                            lane);
      }
      MODALKV_UNROLL
      for (int n = 0; n < Tile::kRowTiles; ++n) MODALKV_UNROLL
      for (int i = 0; i < 4; ++i) {
        const int row = n * 8 + 2 * lane.t + i % 2;
        const Scale& scale = i < 2 ? scales.first : scales.second;
        float& logit = logits[tile][n][i];
        logit += products[tile][n][i] * scale.scale * rows.row(row).factor;
        if (grouped && element.zero_bytes > 0) logit += scale.zero * rows.sums(group)[row];
      }
    }
  }
  if (!queries.folds()) return;
  MODALKV_UNROLL
  for (int n = 0; n < Tile::kRowTiles; ++n) MODALKV_UNROLL
  for (int i = 0; i < 4; ++i)
    logits[0][n][i] = logits[0][n][i] * queries.unit() + queries.fixed(n, i % 2);
}

}  // namespace modalkv::MODALKV_GPU
