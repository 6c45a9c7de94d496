// Attention is not there yet: nothing is launched, and the caller is told.
#include "kernels/cuda/attention_launch.hpp"

namespace modalkv::MODALKV_GPU {
namespace {
constexpr GpuError kNotSupported = 801;  // cudaErrorNotSupported
}

GpuError launch_attend(std::span<const Attend>, SpaceMemory, const GpuLaunch&) {
  return kNotSupported;
}
GpuError launch_merge(const Merge&, SpaceMemory, const GpuLaunch&) {
  return kNotSupported;
}
GpuError launch_finish(const Finish&, SpaceMemory, const GpuLaunch&) {
  return kNotSupported;
}
GpuError launch_score(const Score&, SpaceMemory, const GpuLaunch&) {
  return kNotSupported;
}

}  // namespace modalkv::MODALKV_GPU
