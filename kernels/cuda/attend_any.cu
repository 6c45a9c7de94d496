#include "kernels/cuda/attend_instances.hpp"

namespace modalkv::MODALKV_GPU {
namespace {

template <int dims>
using AnyTile = AttendTile<AnyFormat, AnyFormat, dims, 1>;

AttendKernelSize size(int head_dim, int /*head_rows*/) {
  return head_dim <= 128 ? size_of<AnyTile<128>>() : size_of<AnyTile<256>>();
}

GpuError launch_any(const AttendLaunch& launch, int splits, void* stream) {
  return launch.shape.page.head_dim <= 128 ? launch_tile<AnyTile<128>>(launch, splits, stream)
                                           : launch_tile<AnyTile<256>>(launch, splits, stream);
}

}  // namespace

const AttendFormat kAttendAny = {[](const KvFormat&) { return true; }, size, launch_any};

}  // namespace modalkv::MODALKV_GPU
