// Fill and Copy: as wide as all addresses and lengths of a launch allow; memory is the limit.
#include <algorithm>

#include "kernels/cuda/op_memory.hpp"
#include "kernels/cuda/page_launch.hpp"
#include "kernels/cuda/status_word.hpp"
#include "kernels/simt/simt.hpp"

namespace modalkv::MODALKV_GPU {
namespace {

constexpr int kThreads = 256;
constexpr int kRunsOfALaunch = 128;

struct Run {
  const std::byte* from;  // nullptr: filled
  std::byte* to;
  Bytes bytes;
};

struct Runs {
  std::uint32_t* status;
  unsigned fill;  // a byte in each byte
  Run runs[kRunsOfALaunch];
};

template <class Unit>
__device__ Unit filled(unsigned word) {
  if constexpr (sizeof(Unit) == 16)
    return make_uint4(word, word, word, word);
  else
    return static_cast<Unit>(word);
}

template <class Unit>
__global__ void __launch_bounds__(kThreads) move_bytes(const __grid_constant__ Runs runs) {
  if (has_failed(runs.status)) return;
  const Run& run = runs.runs[blockIdx.y];
  const auto* from = reinterpret_cast<const Unit*>(run.from);
  auto* to = reinterpret_cast<Unit*>(run.to);
  const Bytes count = run.bytes / static_cast<Bytes>(sizeof(Unit));
  const Bytes step = Bytes{kThreads} * gridDim.x;
  Bytes at = Bytes{kThreads} * blockIdx.x + threadIdx.x;
  // Several on their way at once.
  for (; from != nullptr && at + 3 * step < count; at += 4 * step) {
    Unit units[4];
    SIMT_UNROLL
    for (int i = 0; i < 4; ++i) units[i] = from[at + i * step];
    SIMT_UNROLL
    for (int i = 0; i < 4; ++i) to[at + i * step] = units[i];
  }
  for (; at < count; at += step) to[at] = from != nullptr ? from[at] : filled<Unit>(runs.fill);
}

GpuError launch_runs(const Runs& runs, int count, const GpuLaunch& launch) {
  std::uintptr_t places = 0;
  Bytes longest = 0;
  for (const Run& run : std::span(runs.runs, static_cast<std::size_t>(count))) {
    places |= reinterpret_cast<std::uintptr_t>(run.from) |
              reinterpret_cast<std::uintptr_t>(run.to) | static_cast<std::uintptr_t>(run.bytes);
    longest = std::max(longest, run.bytes);
  }
  const Bytes width = places % 16 == 0 ? 16 : places % 4 == 0 ? 4 : 1;
  const Bytes busy = divide_up(8 * launch.multiprocessors, count);
  const auto blocks =
      static_cast<unsigned>(std::clamp<Bytes>(longest / width / kThreads / 4, 1, busy));
  const dim3 grid(blocks, static_cast<unsigned>(count));
  const auto by = [&]<class Unit>(Unit) {
    return SIMT_LAUNCH(move_bytes<Unit>, grid, kThreads, 0, launch.stream, runs);
  };
  return width == 16 ? by(uint4{}) : width == 4 ? by(std::uint32_t{}) : by(std::uint8_t{});
}

}  // namespace

GpuError launch_fill(std::span<const Fill> ops, SpaceMemory memory, const GpuLaunch& launch) {
  Runs runs{launch.status, 0, {}};
  int count = 0;
  for (std::size_t i = 0; i < ops.size(); ++i) {
    runs.fill = ops[i].value * 0x01010101u;
    runs.runs[count++] = {nullptr, at(memory, ops[i].to), ops[i].to.bytes};
    const bool more =
        i + 1 < ops.size() && ops[i + 1].value == ops[i].value && count < kRunsOfALaunch;
    if (more) continue;
    if (const GpuError error = launch_runs(runs, count, launch)) return error;
    count = 0;
  }
  return 0;
}

GpuError launch_copy(std::span<const Copy> ops, SpaceMemory memory, const GpuLaunch& launch) {
  Runs runs{launch.status, 0, {}};
  int count = 0;
  for (std::size_t i = 0; i < ops.size(); ++i) {
    runs.runs[count++] = {at(memory, ops[i].from), at(memory, ops[i].to), ops[i].to.bytes};
    if (i + 1 < ops.size() && count < kRunsOfALaunch) continue;
    if (const GpuError error = launch_runs(runs, count, launch)) return error;
    count = 0;
  }
  return 0;
}

}  // namespace modalkv::MODALKV_GPU
