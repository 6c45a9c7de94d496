// An emulated GPU whose operations are the GPU's own kernels, emulated too.
#pragma once

#include <array>

#include "kernels/cuda/gpu_launch.hpp"
#include "tests/offload/devices.hpp"

namespace modalkv {

/// By emulated_gpu::launch(); needs modalkv_emulated_gpu.
inline void launch_kernels(std::span<const Op> ops, SpaceMemory memory, std::uint32_t* status) {
  struct Scratch {
    alignas(256) std::array<std::byte, 256 * 1024> bytes;
  };
  const auto scratch = std::make_unique<Scratch>();
  const GpuError error = emulated_gpu::launch(
      ops, memory,
      {.stream = nullptr, .status = status, .scratch = scratch->bytes, .multiprocessors = 3});
  if (error != 0) throw Error("an emulated launch failed: " + std::to_string(error));
}

struct CudaKernels {
  static constexpr bool kVirtualTime = false;
  static constexpr bool kRunsAhead = true;
  EmulatedGpu gpu{1, launch_kernels};
  CudaDevice device{gpu, standard_queues(2)};
};

}  // namespace modalkv
