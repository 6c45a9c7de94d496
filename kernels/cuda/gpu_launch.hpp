// What a launch on a GPU needs, and what comes of it. Plain C++: no type of CUDA.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "kernels/effects.hpp"
#include "modalkv/op.hpp"

// Kernels are compiled by nvcc and, for machines without a GPU, by the C++ compiler to run under
// emulation (kernels/simt/simt.hpp); both may be in one program.
#ifdef __CUDACC__
#define MODALKV_GPU gpu
#else
#define MODALKV_GPU emulated_gpu
#endif

namespace modalkv {

/// One stream's means for one group of operations. All memory is visible to the GPU.
struct GpuLaunch {
  void* stream = nullptr;  ///< a cudaStream_t
  /// Of the group: 0, or the Status of the first operation that failed. The caller sets it to 0; a
  /// kernel that finds it set does nothing.
  std::uint32_t* status = nullptr;
  /// Of the stream, aligned to 256 bytes: what runs on it one after another uses it in turn.
  std::span<std::byte> scratch{};
  int multiprocessors = 1;  ///< of the GPU: how many blocks keep it busy
};

/// A cudaError_t; 0: all was launched.
using GpuError = int;

namespace gpu {
/// Launches `ops` in order: what perform() (kernels/effects.hpp) does to bytes, on a GPU. The
/// operations must have been validated. Neighbours of one kind that touch nothing of each other's
/// results may become one launch. EngineWork is skipped. Allocates nothing, waits for nothing.
/// Operations that meet bad data set the status word and leave what they write undefined.
GpuError launch(std::span<const Op> ops, SpaceMemory memory, const GpuLaunch& launch);

/// Loads every kernel of this library onto the current GPU. Set-up: CUDA else does so at a kernel's
/// first launch, and may wait then for all that the GPU has to do.
GpuError preload();
}  // namespace gpu

namespace emulated_gpu {
/// The same kernels on the calling thread and its helpers; done when it returns.
GpuError launch(std::span<const Op> ops, SpaceMemory memory, const GpuLaunch& launch);
}  // namespace emulated_gpu

}  // namespace modalkv
