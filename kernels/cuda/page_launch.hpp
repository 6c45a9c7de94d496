// Pages on a GPU: what Encode, Append, Close, Decode and the checks of kernels/effects.cpp mean, in
// kernels. All return a cudaError_t, allocate nothing and wait for nothing; the operations of a
// span touch nothing of each other's results. Sums take at least 256 bytes of launch.scratch; with
// 64 KiB nothing is read twice for them.
#pragma once

#include <span>

#include "kernels/cuda/gpu_launch.hpp"

namespace modalkv::MODALKV_GPU {

/// Operations that may share a launch with those of this one are `alike`: they differ in pages,
/// rows and tokens only.
bool alike(const Encode& a, const Encode& b);
bool alike(const Append& a, const Append& b);
bool alike(const Close& a, const Close& b);
bool alike(const Decode& a, const Decode& b);

/// Of operations that are alike.
GpuError launch_encode(std::span<const Encode> ops, SpaceMemory memory, const GpuLaunch& launch);
GpuError launch_append(std::span<const Append> ops, SpaceMemory memory, const GpuLaunch& launch);
GpuError launch_close(std::span<const Close> ops, SpaceMemory memory, const GpuLaunch& launch);
GpuError launch_decode(std::span<const Decode> ops, SpaceMemory memory, const GpuLaunch& launch);

GpuError launch_fill(std::span<const Fill> ops, SpaceMemory memory, const GpuLaunch& launch);
GpuError launch_copy(std::span<const Copy> ops, SpaceMemory memory, const GpuLaunch& launch);
GpuError launch_checksum(std::span<const Checksum> ops, SpaceMemory memory,
                         const GpuLaunch& launch);
GpuError launch_verify(std::span<const Verify> ops, SpaceMemory memory, const GpuLaunch& launch);
GpuError launch_verify_page(std::span<const VerifyPage> ops, SpaceMemory memory,
                            const GpuLaunch& launch);

}  // namespace modalkv::MODALKV_GPU
