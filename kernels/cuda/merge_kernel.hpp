// Merging partials by log-sum-exp: several results in one launch.
#pragma once

#include <cstdint>

#include "kernels/cuda/attend_task.hpp"
#include "kernels/cuda/gpu_launch.hpp"

namespace modalkv {

struct MergeTask {
  const float* partials;  ///< [parts, rows, head_dim + 2]
  float* to;              ///< [rows, head_dim + 2], apart from them
  std::int32_t parts;
};

struct MergeLaunch {
  std::int64_t rows;
  std::int32_t head_dim;
  std::int32_t tasks;
  std::uint32_t* status;
  MergeTask task[kMostTasks];
};

}  // namespace modalkv

namespace modalkv::MODALKV_GPU {

GpuError launch_merges(const MergeLaunch& launch, void* stream);

}  // namespace modalkv::MODALKV_GPU
