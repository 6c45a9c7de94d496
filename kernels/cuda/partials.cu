// Merge and Finish (kernels/attention.cpp has the same on the host). A warp a row: what is read is
// read once, in runs of 128 bytes; 2 operations an element. Memory is the limit.
#include "kernels/cuda/attend_operands.hpp"
#include "kernels/cuda/attention_launch.hpp"
#include "kernels/cuda/merge_kernel.hpp"
#include "kernels/cuda/status_word.hpp"
#include "kernels/number.hpp"

namespace modalkv::MODALKV_GPU {
namespace {

constexpr int kRowsOfBlock = 4;
constexpr int kThreads = 32 * kRowsOfBlock;

dim3 blocks_of(std::int64_t rows, int tasks) {
  return {static_cast<unsigned>(divide_up(rows, kRowsOfBlock)), static_cast<unsigned>(tasks), 1};
}

/// The row of the calling warp.
__device__ std::int64_t own_row() {
  return std::int64_t{blockIdx.x} * kRowsOfBlock + threadIdx.x / 32;
}

__global__ void __launch_bounds__(kThreads)
    merge_kernel(const __grid_constant__ MergeLaunch launch) {
  if (has_failed(launch.status)) return;
  const std::int64_t row = own_row();
  if (row >= launch.rows) return;
  const MergeTask& task = launch.task[blockIdx.y];
  const int dims = launch.head_dim, lane = static_cast<int>(threadIdx.x % 32);
  const std::int64_t stride = launch.rows * (dims + 2);
  const float* const from = task.partials + row * (dims + 2);
  float* const to = task.to + row * (dims + 2);
  float maximum = -INFINITY;
  for (int part = 0; part < task.parts; ++part)
    maximum = fmaxf(maximum, from[part * stride + dims]);
  for (int i = lane; i < dims + 2; i += 32) {
    float merged = i == dims ? maximum : 0;
    for (int part = 0; part < task.parts && i != dims && maximum != -INFINITY; ++part) {
      const float* const at = from + part * stride;
      merged += expf(at[dims] - maximum) * at[i];
    }
    to[i] = merged;
  }
}

struct FinishLaunch {
  const float* partials;
  std::uint16_t* outputs;
  float* log_sum_exp;  // nullptr: not wanted
  std::int64_t rows;
  std::int32_t head_dim;
  NumberFormat number;
  std::uint32_t* status;
};

__global__ void __launch_bounds__(kThreads)
    finish_kernel(const __grid_constant__ FinishLaunch launch) {
  if (has_failed(launch.status)) return;
  const std::int64_t row = own_row();
  if (row >= launch.rows) return;
  const int dims = launch.head_dim, lane = static_cast<int>(threadIdx.x % 32);
  const float* const from = launch.partials + row * (dims + 2);
  const float maximum = from[dims], sum = from[dims + 1];
  for (int d = lane; d < dims; d += 32) {
    const float value = sum > 0 ? from[d] / sum : 0.0f;
    launch.outputs[row * dims + d] = static_cast<std::uint16_t>(launch.number == NumberFormat::bf16
                                                                    ? simt::pack_bf16x2(value, 0)
                                                                    : simt::pack_f16x2(value, 0));
  }
  if (lane == 0 && launch.log_sum_exp != nullptr)
    launch.log_sum_exp[row] = sum > 0 ? maximum + logf(sum) : -INFINITY;
}

}  // namespace

GpuError launch_merges(const MergeLaunch& launch, void* stream) {
  return SIMT_LAUNCH(merge_kernel, blocks_of(launch.rows, launch.tasks), (dim3{kThreads, 1, 1}), 0,
                     stream, launch);
}

GpuError launch_merge(const Merge& merge, SpaceMemory memory, const GpuLaunch& launch) {
  MergeLaunch all{.rows = merge.rows,
                  .head_dim = merge.head_dim,
                  .tasks = 1,
                  .status = launch.status,
                  .task = {}};
  all.task[0] = {as<const float>(merge.partials, memory), as<float>(merge.to, memory), merge.parts};
  return launch_merges(all, launch.stream);
}

GpuError launch_finish(const Finish& finish, SpaceMemory memory, const GpuLaunch& launch) {
  const FinishLaunch all{.partials = as<const float>(finish.partials, memory),
                         .outputs = as<std::uint16_t>(finish.outputs, memory),
                         .log_sum_exp = as<float>(finish.log_sum_exp, memory),
                         .rows = finish.rows,
                         .head_dim = finish.head_dim,
                         .number = finish.output,
                         .status = launch.status};
  return SIMT_LAUNCH(finish_kernel, blocks_of(finish.rows, 1), (dim3{kThreads, 1, 1}), 0,
                     launch.stream, all);
}

}  // namespace modalkv::MODALKV_GPU
