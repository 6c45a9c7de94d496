// Score (kernels/token_scores.hpp): how much probe rows attend to each token.
//
// A warp has 16 tokens and goes through KV heads and through probe rows, eight at a time: logits as
// attention makes them, by tensor cores from the packed keys, in two terms of the queries where one
// is not exact. Keys of a head are read once for all its rows. Each token's masses are summed by
// one warp, in one order. The general kernel's formats: it runs once a chunk, not once a step.
#include "kernels/cuda/attend_kernel.hpp"
#include "kernels/cuda/attend_operands.hpp"
#include "kernels/cuda/attention_launch.hpp"

namespace modalkv::MODALKV_GPU {
namespace {

struct ScoreLaunch {
  AttendLaunch attend;  // one task, whose partials are the rows' maxima and sums
  float* scores;
};

/// Masses of the tokens 2 g and 2 g + 1 of a warp's tile.
struct Masses {
  float of[2] = {};
  int rows[2] = {};  // that see the token
};

template <class Tile>
__device__ void add_masses(const AttendLaunch& launch, int kv_head, int first_row,
                           std::uint32_t visible, const Logits<Tile>& logits, Masses& masses) {
  const AttendShape& shape = launch.shape;
  const int dims = shape.page.head_dim, group = shape.group();
  const Lane lane;
  for (int i = 0; i < 4; ++i) {
    const int row = first_row + 2 * lane.t + i % 2;
    if (row >= shape.head_rows() || (visible >> Visibility<Tile>::bit(0, 0, i) & 1) == 0) continue;
    ++masses.rows[i / 2];
    const std::int64_t query =
        std::int64_t{row / group} * shape.query_heads + kv_head * group + row % group;
    const float* const partial = launch.task[0].partials + query * (dims + 2) + dims;
    const float maximum = partial[0], sum = partial[1];
    if (sum > 0) masses.of[i / 2] += expf(logits[0][0][i] - maximum) / sum;
  }
}

template <class Tile>
__global__ void __launch_bounds__(Tile::kThreads, Tile::kLeastBlocks)
    score_kernel(const __grid_constant__ ScoreLaunch score) {
  SIMT_DYNAMIC_SHARED(std::byte, shared);
  const AttendLaunch& launch = score.attend;
  if (has_failed(launch.status)) return;
  const AttendShape& shape = launch.shape;
  const AttendTask& task = launch.task[0];
  const typename Tile::Key format(shape.page.format.key);
  std::byte* const warps = shared + Tile::kSharedBytes;
  auto* const floats = reinterpret_cast<float*>(warps);
  std::byte* const own = warps + threadIdx.x / 32 * Tile::kWarpBytes;
  const auto end = static_cast<int>(divide_up(task.tokens, Tokens{kLineRows}));
  const auto tile = static_cast<int>(blockIdx.x * Tile::kWarps + threadIdx.x / 32);
  const Lane lane;
  QueryTile<Tile> rows(shared);
  KnownBiasLogits<Tile> bias(shape, task, shared);
  Masses masses;
  for (int kv_head = 0; kv_head < shape.page.kv_heads; ++kv_head) {
    for (int first_row = 0; first_row < shape.head_rows(); first_row += Tile::kRows) {
      __syncthreads();  // the rows before are done with
      rows.load(shape, task, kv_head, first_row, floats);
      if (task.bias_positions != nullptr) bias.make(kv_head, floats);
      rows.make(shape, task, first_row, floats);
      for (int i = lane.index * 16; i < Tile::kStageBytes; i += 32 * 16)
        *reinterpret_cast<uint4*>(own + i) = make_uint4(0, 0, 0, 0);
      __syncwarp();
      PageStream<Tile> pages(launch, task, kv_head, min(tile, end), min(tile + 1, end), own);
      const bool there = pages.fetch(0, false) && tile < end;
      simt::copy_async_commit();
      simt::copy_async_wait<0>();
      __syncwarp();
      if (!there) continue;
      const std::uint32_t visible = Visibility<Tile>(task, rows)(tile, end);
      QueryOperands<Tile> queries(rows, shape,
                                  own + Tile::kStages * Tile::kStageBytes + Tile::kWeightBytes);
      if (queries.folds()) {
        const TilePlace& place = pages.last();
        queries.fold(place.page +
                     pages.keys.channel_metadata(shape.page, format.get(), place.in_page * 16));
      }
      Logits<Tile> logits;
      compute_logits<Tile>(format, rows, queries, shape.page.head_dim, own, lane, logits);
      if (task.bias_positions != nullptr) {
        bias.compute(Tokens{tile} * 16);
        for (int i = 0; i < 4; ++i)
          logits[0][0][i] += bias.logit(2 * lane.g + i / 2, 2 * lane.t + i % 2);
      }
      add_masses<Tile>(launch, kv_head, first_row, visible, logits, masses);
    }
  }
  for (int i = 0; i < 2; ++i) {
    float mass = masses.of[i];
    int seen = masses.rows[i];
    for (int lanes = 1; lanes < 4; lanes *= 2) {
      mass += __shfl_xor_sync(~0u, mass, lanes);
      seen += __shfl_xor_sync(~0u, seen, lanes);
    }
    const Tokens token = Tokens{tile} * 16 + 2 * lane.g + i;
    if (lane.t == 0 && token < task.tokens)
      score.scores[token] = seen > 0 ? mass / static_cast<float>(seen) : 0.0f;
  }
}

template <int dims>
GpuError launch_dims(const ScoreLaunch& score, void* stream) {
  using Tile = AttendTile<AnyFormat, AnyFormat, dims, 1>;
  const AttendTask& task = score.attend.task[0];
  const auto blocks = divide_up(task.tokens, Tokens{16 * Tile::kWarps});
  return SIMT_LAUNCH(
      score_kernel<Tile>, (dim3{static_cast<unsigned>(blocks), 1, 1}), (dim3{Tile::kThreads, 1, 1}),
      static_cast<std::size_t>(Tile::dynamic_bytes(task.bias_positions != nullptr)), stream, score);
}

}  // namespace

GpuError launch_score(const Score& op, SpaceMemory memory, const GpuLaunch& launch) {
  ScoreLaunch score{};
  score.attend.shape = attend_shape(op, memory);
  score.attend.status = launch.status;
  score.attend.tasks = 1;
  score.attend.task[0] = attend_task(op, as<float>(op.partials, memory), memory);
  score.scores = as<float>(op.scores, memory);
  return op.shape.head_dim <= 128 ? launch_dims<128>(score, launch.stream)
                                  : launch_dims<256>(score, launch.stream);
}

}  // namespace modalkv::MODALKV_GPU
