// The real GPU behind GpuDriver.
#pragma once

#include <memory>

#include "offload/cuda/gpu_driver.hpp"

namespace modalkv {

struct CudaDriverOptions {
  int gpu = 0;  ///< in CUDA's order
  /// What kernels of one stream merge in.
  Bytes scratch_bytes = 32 * kMiB;
  /// Word operations and batched copies of the driver where it has them; else kernels and single
  /// copies do the same.
  bool uses_stream_words = true;
  bool uses_batched_copies = true;
};

/// In the GPU's primary context, which the engine's CUDA runtime shares. Throws Error, one line,
/// where there is no GPU or driver, or modalkv was built without CUDA.
std::unique_ptr<GpuDriver> open_cuda_driver(const CudaDriverOptions& options = {});

}  // namespace modalkv
