// The status word of a launch (kernels/cuda/gpu_launch.hpp).
#pragma once

#include <cstdint>

#include "kernels/simt/simt.hpp"
#include "modalkv/error.hpp"

namespace modalkv::MODALKV_GPU {

/// The first failure counts.
__device__ inline void fail(std::uint32_t* status, Status why) {
  atomicCAS(status, 0u, static_cast<std::uint32_t>(why));
}

/// Whether something failed before; the same for all threads of a block, which all call it.
__device__ inline bool has_failed(std::uint32_t* status) {
  return __syncthreads_or(threadIdx.x == 0 && atomicOr(status, 0u) != 0 ? 1 : 0) != 0;
}

}  // namespace modalkv::MODALKV_GPU
