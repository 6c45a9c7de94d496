// What a known key bias adds to logits (kernels/key_bias.hpp), for the tokens of a stage.
//
// Phases are integers: position times frequency in 2^-64 of a turn, exact modulo a turn, so no
// angle is too large. A lane has a token and half of the pairs of channels; for each pair about 20
// operations make the cosine and the sine, and 2 go to each query row.
#pragma once

#include "kernels/cuda/query_tile.hpp"

namespace modalkv::MODALKV_GPU {

/// Of 2^-32 turns. Taylor series within an eighth of a turn; errors below 1e-7.
__device__ inline float2 cosine_and_sine(std::uint32_t phase) {
  const std::uint32_t quarter = (phase + 0x20000000u) >> 30;
  const auto rest = static_cast<std::int32_t>(phase - (quarter << 30));
  const float x = static_cast<float>(rest) * 1.4629180792671596e-9f;  // 2 pi / 2^32
  const float square = x * x;
  float sine = 2.7557319e-6f;
  sine = sine * square - 1.9841270e-4f;
  sine = sine * square + 8.3333333e-3f;
  sine = sine * square - 0.16666667f;
  sine = sine * square * x + x;
  float cosine = 2.4801587e-5f;
  cosine = cosine * square - 1.3888889e-3f;
  cosine = cosine * square + 4.1666667e-2f;
  cosine = cosine * square - 0.5f;
  cosine = cosine * square + 1.0f;
  const float a = (quarter & 1) != 0 ? sine : cosine, b = (quarter & 1) != 0 ? cosine : sine;
  return make_float2(((quarter + 1) & 2) != 0 ? -a : a, (quarter & 2) != 0 ? -b : b);
}

template <class Tile>
class KnownBiasLogits {
 public:
  /// `shared`: the block's memory from Tile::kBiasTerms on counts.
  __device__ KnownBiasLogits(const AttendShape& shape, const AttendTask& task, std::byte* shared)
      : shape_(shape),
        task_(task),
        terms_(reinterpret_cast<float2*>(shared + Tile::kBiasTerms)),
        frequencies_(reinterpret_cast<std::uint64_t*>(shared + Tile::kBiasFrequencies)),
        logits_(reinterpret_cast<float*>(shared + Tile::kBiasLogits +
                                         threadIdx.x / 32 * Tile::kBiasLogitBytes)) {}

  /// From query rows as they are, [rows, dims]. All threads; ends in a barrier.
  __device__ void make(int kv_head, const float* queries) {
    const int dims = shape_.page.head_dim, half = dims / 2;
    const float* const bias = shape_.bias + std::int64_t{kv_head} * dims;
    for (int i = static_cast<int>(threadIdx.x); i < half * Tile::kRows; i += Tile::kThreads) {
      const int pair = i / Tile::kRows;
      const float* const row = queries + i % Tile::kRows * Tile::kDims;
      const float a = row[pair] * shape_.logit_scale, b = row[pair + half] * shape_.logit_scale;
      terms_[i] = make_float2(a * bias[pair] + b * bias[pair + half],
                              b * bias[pair] - a * bias[pair + half]);
    }
    for (int i = static_cast<int>(threadIdx.x); i < half; i += Tile::kThreads)
      frequencies_[i] = turns(shape_.frequencies[i]);
    __syncthreads();
  }

  /// Of the tokens from `first`. All lanes of a warp.
  __device__ void compute(Tokens first) {
    const int half = shape_.page.head_dim / 2, axes = shape_.sections.axes();
    const int part = lane_.index / 16;
    for (int tile = 0; tile < Tile::kTiles; ++tile) {
      const Tokens token = first + tile * 16 + lane_.index % 16;
      std::int32_t first_axis = 0, second_axis = 0, third_axis = 0;
      if (token < task_.tokens) {
        const std::int32_t* const position = task_.bias_positions + token * axes;
        first_axis = position[0];
        second_axis = axes == 3 ? position[1] : 0;
        third_axis = axes == 3 ? position[2] : 0;
      }
      for (int rows = 0; rows < Tile::kRows; rows += 8) {
        float sums[8] = {};
        for (int pair = part; pair < half; pair += 2) {
          const int axis = shape_.sections.axis(pair);
          const std::int32_t at = axis == 0 ? first_axis : axis == 1 ? second_axis : third_axis;
          const float2 turn = cosine_and_sine(phase(at, frequencies_[pair]));
          const float2* const terms = terms_ + pair * Tile::kRows + rows;
          MODALKV_UNROLL
          for (int r = 0; r < 8; ++r) sums[r] += terms[r].x * turn.x + terms[r].y * turn.y;
        }
        MODALKV_UNROLL
        for (int r = 0; r < 8; ++r) {
          const float sum = sums[r] + __shfl_xor_sync(~0u, sums[r], 16);
          if (part == 0) logits_[(tile * 16 + lane_.index) * Tile::kRows + rows + r] = sum;
        }
      }
    }
    __syncwarp();
  }

  /// What compute() found, of a token of the stage.
  __device__ float logit(int token, int row) const { return logits_[token * Tile::kRows + row]; }

 private:
  // The part of a turn that a step of one position makes, in 2^-64.
  __device__ static std::uint64_t turns(float frequency) {
    const double all = static_cast<double>(frequency) * 0.15915494309189535;
    const double part = all - floor(all);
    return part < 1 ? static_cast<std::uint64_t>(part * 0x1p64) : 0;
  }
  __device__ static std::uint32_t phase(std::int32_t position, std::uint64_t frequency) {
    const std::uint64_t turned =
        static_cast<std::uint64_t>(std::int64_t{position}) * frequency + 0x80000000u;
    return static_cast<std::uint32_t>(turned >> 32);
  }

  const AttendShape& shape_;
  const AttendTask& task_;
  float2* terms_;
  std::uint64_t* frequencies_;
  float* logits_;
  Lane lane_;
};

}  // namespace modalkv::MODALKV_GPU
