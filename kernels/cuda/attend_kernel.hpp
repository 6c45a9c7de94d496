// Attention of up to kRows query rows of one KV head over a part of the tokens of a list.
//
// A block's warps divide its tokens; each keeps maxima, sums and outputs of its own (online
// softmax, Milakov and Gimelshein 2018; tokens split over blocks as in flash-decoding, Dao et al.
// 2023).
//
// What 16 tokens of one KV head cost a warp, at head_dim 128 and eight query rows: for INT4 2 KiB
// of codes and 128 B of scales and zeros, read once; 16 products of tensor cores (8 for logits, 8
// for values); 128 + 128 operations to unpack codes; 4 exponentials and about 60 operations of
// softmax; 25 loads of shared memory.
#pragma once

#include "kernels/cuda/known_bias.hpp"
#include "kernels/cuda/weighted_values.hpp"

namespace modalkv::MODALKV_GPU {

inline constexpr float kLog2E = 1.44269504f;
inline constexpr float kWeightExponent = 14;  ///< weights are up to 2^14: FP16 holds small ones too

/// Which of the elements of logit fragments are to be seen, a bit each.
template <class Tile>
class Visibility {
 public:
  __device__ Visibility(const AttendTask& task, const QueryTile<Tile>& rows)
      : task_(task), rows_(rows) {}

  /// Of the tokens of tiles [first, end).
  __device__ std::uint32_t operator()(int first, int end) const {
    std::uint32_t bits = 0;
    MODALKV_UNROLL
    for (int tile = 0; tile < Tile::kTiles; ++tile) MODALKV_UNROLL
    for (int which = 0; which < 2; ++which) {
      const Tokens token = (first + tile) * 16 + 2 * lane_.g + which;
      if (first + tile >= end || token >= task_.tokens || is_hidden(token)) continue;
      const std::int32_t position =
          task_.query_positions == nullptr ? 0 : task_.token_positions[token];
      MODALKV_UNROLL
      for (int n = 0; n < Tile::kRowTiles; ++n) MODALKV_UNROLL
      for (int column = 0; column < 2; ++column)
        if (sees(n * 8 + 2 * lane_.t + column, position))
          bits |= 1u << bit(tile, n, 2 * which + column);
    }
    return bits;
  }

  __device__ static constexpr int bit(int tile, int row_tile, int i) {
    return (tile * Tile::kRowTiles + row_tile) * 4 + i;
  }

 private:
  __device__ bool is_hidden(Tokens token) const {
    return task_.hidden != nullptr && (task_.hidden[token / 64] >> token % 64 & 1) != 0;
  }
  __device__ bool sees(int row, std::int32_t position) const {
    if (task_.query_positions == nullptr) return true;
    return position >= rows_.row(row).first && position <= rows_.row(row).last;
  }

  static_assert(Tile::kTiles * Tile::kRowTiles * 4 <= 32);

  const AttendTask& task_;
  const QueryTile<Tile>& rows_;
  Lane lane_;
};

/// A warp's maxima and sums of the columns of its fragments.
template <class Tile>
struct Columns {
  float maximum[Tile::kRowTiles][2], sum[Tile::kRowTiles][2] = {};

  __device__ Columns() {
    for (auto& pair : maximum) pair[0] = pair[1] = -INFINITY;
  }

  /// Logits become weights against the maxima, which may grow: then `values` shrink.
  __device__ MODALKV_INLINE void weigh(std::uint32_t visible, Logits<Tile>& logits,
                                       WeightedValues<Tile>& values) {
    float factors[Tile::kRowTiles][2];
    bool grows = false;
    MODALKV_UNROLL
    for (int n = 0; n < Tile::kRowTiles; ++n) MODALKV_UNROLL
    for (int column = 0; column < 2; ++column) {
      float most = maximum[n][column];
      MODALKV_UNROLL
      for (int tile = 0; tile < Tile::kTiles; ++tile) MODALKV_UNROLL
      for (int i = column; i < 4; i += 2) {
        float& logit = logits[tile][n][i];
        if ((visible >> Visibility<Tile>::bit(tile, n, i) & 1) == 0) logit = -INFINITY;
        most = fmaxf(most, logit);
      }
      most = most_of_column(most);
      grows |= most > maximum[n][column];
      // Both -inf: nothing was seen yet, and nothing is there to shrink.
      factors[n][column] =
          most == -INFINITY ? 1.0f : simt::ex2((maximum[n][column] - most) * kLog2E);
      maximum[n][column] = most;
    }
    if (__any_sync(~0u, grows ? 1 : 0) != 0) {
      values.shrink(factors);
      MODALKV_UNROLL
      for (int n = 0; n < Tile::kRowTiles; ++n) MODALKV_UNROLL
      for (int column = 0; column < 2; ++column) sum[n][column] *= factors[n][column];
    }
    MODALKV_UNROLL
    for (int n = 0; n < Tile::kRowTiles; ++n) MODALKV_UNROLL
    for (int i = 0; i < 4; ++i) {
      const float most = maximum[n][i % 2] == -INFINITY ? 0 : maximum[n][i % 2];
      MODALKV_UNROLL
      for (int tile = 0; tile < Tile::kTiles; ++tile) {
        float& logit = logits[tile][n][i];
        logit = simt::ex2((logit - most) * kLog2E + kWeightExponent);
        sum[n][i % 2] += logit;
      }
    }
  }
};

/// One warp's way through tiles [begin, end), which are those of `pages`.
template <class Tile>
__device__ MODALKV_INLINE void walk(const AttendLaunch& launch, const AttendTask& task,
                                    PageStream<Tile>& pages, QueryOperands<Tile>& queries,
                                    const QueryTile<Tile>& rows, KnownBiasLogits<Tile>& bias,
                                    int begin, int end, Columns<Tile>& columns,
                                    WeightedValues<Tile>& values) {
  const PageShape& page = launch.shape.page;
  const typename Tile::Key key_format(page.format.key);
  const ElementFormat key = key_format.get();
  const ElementFormat value = typename Tile::Value(page.format.value).get();
  const Visibility<Tile> visibility(task, rows);
  const Lane lane;
  bool there = pages.fetch(0, true);
  simt::copy_async_commit();
  int slot = 0;
  for (int tile = begin; there && tile < end; tile += Tile::kTiles, slot ^= 1) {
    there = pages.fetch(slot ^ 1, true);
    simt::copy_async_commit();
    const std::uint32_t visible = visibility(tile, end);
    if (task.bias_positions != nullptr) bias.compute(Tokens{tile} * 16);
    const std::byte *key_channels = nullptr, *value_channels = nullptr;
    if (key.per_channel || value.per_channel) {
      const TilePlace& place = pages.before();
      key_channels = place.page + pages.keys.channel_metadata(page, key, place.in_page * 16);
      value_channels = place.page + pages.values.channel_metadata(page, value, place.in_page * 16);
    }
    if (queries.folds()) queries.fold(key_channels);
    simt::copy_async_wait<1>();
    __syncwarp();
    if (__any_sync(~0u, visible != 0 ? 1 : 0) != 0) {
      Logits<Tile> logits;
      compute_logits<Tile>(key_format, rows, queries, page.head_dim, pages.stage(slot), lane,
                           logits);
      if (task.bias_positions != nullptr) MODALKV_UNROLL
      for (int t = 0; t < Tile::kTiles; ++t) MODALKV_UNROLL
      for (int n = 0; n < Tile::kRowTiles; ++n) MODALKV_UNROLL
      for (int i = 0; i < 4; ++i)
        logits[t][n][i] += bias.logit(t * 16 + 2 * lane.g + i / 2, n * 8 + 2 * lane.t + i % 2);
      columns.weigh(visible, logits, values);
      values.add(pages.stage(slot), value_channels, logits);
    }
    __syncwarp();  // all have read the stage, and what the bias adds
  }
  simt::copy_async_wait<0>();
}

/// Merges the warps of a block and writes partials. All threads.
template <class Tile>
__device__ void write_partials(const AttendLaunch& launch, const AttendTask& task, int kv_head,
                               int first_row, int split, float* floats, Columns<Tile>& columns,
                               WeightedValues<Tile>& values) {
  float* const outputs = floats;                             // [rows, dims]
  float* const maxima = floats + Tile::kRows * Tile::kDims;  // [warps, rows]
  float* const sums = maxima + Tile::kWarps * Tile::kRows;
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const Lane lane;
  values.finish();
  __syncthreads();
  MODALKV_UNROLL
  for (int n = 0; n < Tile::kRowTiles; ++n) MODALKV_UNROLL
  for (int column = 0; column < 2; ++column) {
    const float sum = sum_of_column(columns.sum[n][column]);
    const int row = n * 8 + 2 * lane.t + column;
    if (lane.g != 0) continue;
    maxima[warp * Tile::kRows + row] = columns.maximum[n][column];
    sums[warp * Tile::kRows + row] = sum;
  }
  __syncthreads();
  const auto most_of_row = [&](int row) {
    float most = -INFINITY;
    for (int w = 0; w < Tile::kWarps; ++w) most = fmaxf(most, maxima[w * Tile::kRows + row]);
    return most;
  };
  const auto factor = [&](float maximum, float most) {
    return maximum == -INFINITY ? 0.0f : simt::ex2((maximum - most) * kLog2E) * 0x1p-14f;
  };
  for (int turn = 0; turn < Tile::kWarps; ++turn) {
    if (turn == warp) MODALKV_UNROLL
    for (int n = 0; n < Tile::kRowTiles; ++n) MODALKV_UNROLL
    for (int column = 0; column < 2; ++column) {
      const int row = n * 8 + 2 * lane.t + column;
      const float own = factor(columns.maximum[n][column], most_of_row(row));
      MODALKV_UNROLL
      for (int block = 0; block < Tile::kBlocks; ++block) MODALKV_UNROLL
      for (int i = column; i < 4; i += 2) {
        float& output = outputs[row * Tile::kDims + block * 16 + 2 * lane.g + i / 2];
        output = (turn == 0 ? 0 : output) + values.output(block, n, i) * own;
      }
    }
    __syncthreads();
  }
  const AttendShape& shape = launch.shape;
  const int dims = shape.page.head_dim, group = shape.group();
  const int rows = min(Tile::kRows, shape.head_rows() - first_row);
  for (int i = static_cast<int>(threadIdx.x); i < rows * (dims + 2); i += Tile::kThreads) {
    const int row = i / (dims + 2), d = i % (dims + 2);
    const int token = (first_row + row) / group, head = kv_head * group + (first_row + row) % group;
    const std::int64_t to = std::int64_t{split} * shape.query_tokens * shape.query_heads +
                            std::int64_t{token} * shape.query_heads + head;
    const float most = most_of_row(row);
    float value = most;
    if (d < dims) value = outputs[row * Tile::kDims + d];
    if (d > dims) {
      value = 0;
      for (int w = 0; w < Tile::kWarps; ++w)
        value += sums[w * Tile::kRows + row] * factor(maxima[w * Tile::kRows + row], most);
    }
    task.partials[to * (dims + 2) + d] = value;
  }
}

/// The task of a split, and which of its own it is.
__device__ inline int task_of(const AttendLaunch& launch, int split) {
  int task = 0;
  while (task + 1 < launch.tasks && launch.task[task + 1].first_split <= split) ++task;
  return task;
}

/// Grid: x: [row tiles, KV heads], heads next to each other, as they lie in pages; y: splits.
template <class Tile>
__global__ void __launch_bounds__(Tile::kThreads, Tile::kLeastBlocks)
    attend_kernel(const __grid_constant__ AttendLaunch launch) {
  SIMT_DYNAMIC_SHARED(std::byte, shared);
  if (has_failed(launch.status)) return;
  const AttendShape& shape = launch.shape;
  const auto kv_head = static_cast<int>(blockIdx.x) % shape.page.kv_heads;
  const int first_row = static_cast<int>(blockIdx.x) / shape.page.kv_heads * Tile::kRows;
  const AttendTask& task = launch.task[task_of(launch, static_cast<int>(blockIdx.y))];
  const int split = static_cast<int>(blockIdx.y) - task.first_split;
  const int warp = static_cast<int>(threadIdx.x) / 32;

  std::byte* const warps = shared + Tile::kSharedBytes;
  auto* const floats = reinterpret_cast<float*>(warps);
  QueryTile<Tile> rows(shared);
  KnownBiasLogits<Tile> bias(shape, task, shared);
  rows.load(shape, task, kv_head, first_row, floats);
  if (task.bias_positions != nullptr) bias.make(kv_head, floats);
  rows.make(shape, task, first_row, floats);
  // What pages do not fill (padded channels, tiles beyond the last) must be finite.
  for (int i = static_cast<int>(threadIdx.x) * 16; i < Tile::kWarpsBytes; i += Tile::kThreads * 16)
    *reinterpret_cast<uint4*>(warps + i) = make_uint4(0, 0, 0, 0);
  __syncthreads();

  std::byte* const own = warps + warp * Tile::kWarpBytes;
  const auto all = static_cast<int>(divide_up(task.tokens, Tokens{kLineRows}));
  const int begin = split * task.split_tiles, end = min(all, begin + task.split_tiles);
  const int stages = (end - begin + Tile::kTiles - 1) / Tile::kTiles;
  const int own_begin = begin + stages * warp / Tile::kWarps * Tile::kTiles;
  const int own_end = min(end, begin + stages * (warp + 1) / Tile::kWarps * Tile::kTiles);
  PageStream<Tile> pages(launch, task, kv_head, own_begin, own_end, own);
  QueryOperands<Tile> queries(rows, shape,
                              own + Tile::kStages * Tile::kStageBytes + Tile::kWeightBytes);
  WeightedValues<Tile> values(shape, own + Tile::kStages * Tile::kStageBytes);
  Columns<Tile> columns;
  walk<Tile>(launch, task, pages, queries, rows, bias, own_begin, own_end, columns, values);
  write_partials<Tile>(launch, task, kv_head, first_row, split, floats, columns, values);
}

}  // namespace modalkv::MODALKV_GPU
