// Query rows of a block as B operands of mma.m16n8k16, in the order in which lanes read them.
#pragma once

#include "kernels/cuda/attend_task.hpp"
#include "kernels/cuda/attend_tile.hpp"
#include "kernels/cuda/tile_operands.hpp"
#include "kernels/hadamard.hpp"
#include "kernels/number.hpp"

namespace modalkv::MODALKV_GPU {

/// What a row's logits take.
struct QueryRow {
  float factor;              ///< of products of operands
  std::int32_t first, last;  ///< positions that it sees
  float sum_factor;          ///< of sums of its elements
};

/// In the shared memory of a block.
template <class Tile>
class QueryTile {
 public:
  __device__ explicit QueryTile(std::byte* shared)
      : words_(reinterpret_cast<std::uint32_t*>(shared)),
        sums_(reinterpret_cast<float*>(shared + Tile::kQueryBytes)),
        rows_(reinterpret_cast<QueryRow*>(shared + Tile::kQueryBytes + Tile::kQuerySumBytes)) {}

  /// The operands of a term: [row tiles, steps, lanes, 2].
  __device__ const std::uint32_t* words(int term) const {
    return words_ + term * Tile::kQueryWords;
  }
  /// Sums of the elements of a group [rows], scaled as logits are.
  __device__ const float* sums(int group) const { return sums_ + group * Tile::kRows; }
  __device__ const QueryRow& row(int row) const { return rows_[row]; }
  __device__ int terms() const { return terms_; }

  /// Rows [first, first + kRows) of a KV head as floats [rows, dims], zeros where there is none.
  /// All threads; ends in a barrier.
  __device__ static void load(const AttendShape& shape, const AttendTask& task, int kv_head,
                              int first, float* floats) {
    const int dims = shape.page.head_dim, group = shape.group();
    for (int i = static_cast<int>(threadIdx.x); i < Tile::kRows * Tile::kDims;
         i += Tile::kThreads) {
      const int row = first + i / Tile::kDims, d = i % Tile::kDims;
      float value = 0;
      if (row < shape.head_rows() && d < dims) {
        const std::int64_t query =
            std::int64_t{row / group} * shape.query_heads + kv_head * group + row % group;
        const std::uint16_t element = task.queries[query * dims + d];
        value =
            shape.input == NumberFormat::bf16 ? simt::low_bf16(element) : simt::low_f16(element);
      }
      floats[i] = value;
    }
    __syncthreads();
  }

  /// Makes operands of the floats, which it may change. All threads; ends in a barrier.
  __device__ void make(const AttendShape& shape, const AttendTask& task, int first, float* floats) {
    const ElementFormat& element = shape.page.format.key;
    const typename Tile::Key format(element);
    const bool bf16 = element.number == NumberFormat::bf16;
    const bool rotated =
        shape.page.format.key_rotation > 0 && quantization(element) != Quantization::none;
    terms_ = rotated || element.per_channel || (bf16 && shape.input != NumberFormat::bf16) ? 2 : 1;
    if (rotated) rotate(shape.page.format.key_rotation, floats);
    make_rows(shape, task, first, floats, operand_factor_of(format), bf16);
    make_words(format, floats);
    make_sums(shape, floats);
    __syncthreads();
  }

 private:
  // As kernels/hadamard.hpp does it, all blocks of all rows at once.
  __device__ static void rotate(int order, float* floats) {
    for (int apart = 1; apart < order; apart *= 2) {
      for (int i = static_cast<int>(threadIdx.x); i < Tile::kRows * Tile::kDims / 2;
           i += Tile::kThreads) {
        float* const at = floats + i / apart * 2 * apart + i % apart;
        const float a = at[0], b = at[apart];
        at[0] = a + b;
        at[apart] = a - b;
      }
      __syncthreads();
    }
    for (int i = static_cast<int>(threadIdx.x); i < Tile::kRows * Tile::kDims; i += Tile::kThreads)
      floats[i] *= hadamard_scale(order);
    __syncthreads();
  }

  // A warp a row. Leaves rows times the power of two that makes operands of them.
  __device__ void make_rows(const AttendShape& shape, const AttendTask& task, int first,
                            float* floats, float operand_factor, bool bf16) {
    const ElementFormat& element = shape.page.format.key;
    const bool scaled = quantization(element) != Quantization::none && element.scale_bytes == 0;
    for (int row = static_cast<int>(threadIdx.x) / 32; row < Tile::kRows; row += Tile::kWarps) {
      float* const own = floats + row * Tile::kDims;
      float most = 0;
      for (int d = static_cast<int>(threadIdx.x) % 32; d < Tile::kDims; d += 32)
        most = fmaxf(most, fabsf(own[d]));
      for (int lanes = 1; lanes < 32; lanes *= 2)
        most = fmaxf(most, __shfl_xor_sync(~0u, most, lanes));
      Unit unit = power_below(most);
      if (bf16 || most == 0) unit = {1, 1};
      const float up = bf16 || most == 0 ? 1.0f : 0x1p14f;
      for (int d = static_cast<int>(threadIdx.x) % 32; d < Tile::kDims; d += 32)
        own[d] = own[d] * unit.inverse * up;
      if (threadIdx.x % 32 == 0) {
        QueryRow made{shape.logit_scale * unit.unit * (operand_factor / up) *
                          (scaled ? shape.key_scale : 1.0f),
                      0, 0, 0};
        const int token = (first + row) / shape.group();
        if (task.query_positions != nullptr && token < shape.query_tokens)
          set_positions(task.query_positions[token], shape.window, made);
        made.sum_factor = shape.logit_scale * unit.unit / up;
        rows_[row] = made;
      }
    }
    __syncthreads();
  }
  // As kernels/query_rows.hpp has it.
  __device__ static void set_positions(std::int32_t last, std::int32_t window, QueryRow& row) {
    const std::int64_t lowest = -0x8000'0000LL;
    const std::int64_t first = std::int64_t{last} - window + 1;
    row.first = static_cast<std::int32_t>(window <= 0 || first < lowest ? lowest : first);
    row.last = last;
  }

  __device__ void make_words(const typename Tile::Key& format, const float* floats) {
    constexpr int unit = Tile::kKeyUnit;
    for (int i = static_cast<int>(threadIdx.x); i < Tile::kQueryWords; i += Tile::kThreads) {
      const int lane = i / 2 % 32, step = i / 64 % Tile::kSteps, tile = i / 64 / Tile::kSteps;
      const int pair = 2 * (step % (unit / 16)) + i % 2;
      const int channel =
          step / (unit / 16) * unit + depth_position<unit>(format.get(), lane % 4, pair);
      const float* const at = floats + (tile * 8 + lane / 4) * Tile::kDims + channel;
      const Terms terms = in_two_terms(format, at[0], at[1]);
      words_[i] = terms.high;
      words_[Tile::kQueryWords + i] = terms.low;
    }
  }

  __device__ void make_sums(const AttendShape& shape, const float* floats) {
    const ElementFormat& element = shape.page.format.key;
    const int group = Tile::kKeyGroups == 1 ? Tile::kDims : Tile::kDims / Tile::kKeyGroups;
    if (!has_token_scales(element)) return;
    for (int i = static_cast<int>(threadIdx.x); i < Tile::kKeyGroups * Tile::kRows;
         i += Tile::kThreads) {
      const float* const at = floats + i % Tile::kRows * Tile::kDims + i / Tile::kRows * group;
      float sum = 0;
      for (int d = 0; d < group; ++d) sum += at[d];
      sums_[i] = sum * rows_[i % Tile::kRows].sum_factor;
    }
  }

  std::uint32_t* words_;
  float* sums_;
  QueryRow* rows_;
  int terms_ = 1;
};

}  // namespace modalkv::MODALKV_GPU
