// Checksums on a GPU (kernels/checksum.hpp), in two steps: blocks sum the words of parts of what is
// checked into slots of the launch's scratch, then a warp for each task adds its slots and
// concludes. Nothing has to be zero before, and the order of blocks makes no difference.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "kernels/checksum.hpp"
#include "kernels/cuda/gpu_launch.hpp"
#include "kernels/simt/simt.hpp"

namespace modalkv::MODALKV_GPU {

/// What is made of a sum.
struct Conclusion {
  enum class Kind : std::uint8_t {
    store,    ///< written to `at`
    compare,  ///< with the one at `at`: Status::checksum where they differ
    page,     ///< with the one in the page's trailer, and the trailer with what follows
    seal,     ///< of a page, up to its trailer: it is given one
  };
  const std::byte* begin = nullptr;  ///< of what is summed
  std::byte* at = nullptr;           ///< of a page: its trailer
  Bytes bytes = 0;                   ///< summed in slots; behind come zeros, up to the trailer
  ContentId content{};
  std::uint64_t generation = 0;
  std::int64_t tokens = 0;  ///< of a page; -1: any, and any content and generation where `lenient`
  Kind kind = Kind::store;
  bool lenient = false;
};

/// Those of one launch: parameters of a kernel have 4 KiB.
inline constexpr int kConclusionsOfALaunch = 32;

/// Sums each task's bytes into slots, which begin at `launch.scratch`, and concludes.
GpuError sum_and_conclude(std::span<const Conclusion> tasks, const GpuLaunch& launch);

/// Of at most kConclusionsOfALaunch tasks; each has `slots` in a row.
GpuError conclude(std::span<const Conclusion> tasks, const std::uint64_t* sums, int slots,
                  const GpuLaunch& launch);

/// The term of a 64-bit word at a byte of what is summed.
__device__ inline std::uint64_t checksum_term(std::uint64_t word, Bytes at) {
  return checksum_mix(word + (static_cast<std::uint64_t>(at) / 8 + 1) * kChecksumStep);
}

__device__ inline std::uint64_t warp_sum(std::uint64_t sum) {
  for (int lanes = 16; lanes > 0; lanes /= 2) sum += __shfl_xor_sync(~0u, sum, lanes);
  return sum;
}

/// Thread 0 of a block of at most 32 warps gets the sum. All threads call it.
__device__ inline std::uint64_t block_sum(std::uint64_t sum) {
  SIMT_SHARED(std::uint64_t[32], sums);
  sum = warp_sum(sum);
  if (threadIdx.x % 32 == 0) sums[threadIdx.x / 32] = sum;
  __syncthreads();
  const bool some = threadIdx.x < blockDim.x / 32;
  return threadIdx.x < 32 ? warp_sum(some ? sums[threadIdx.x] : 0) : 0;
}

}  // namespace modalkv::MODALKV_GPU
