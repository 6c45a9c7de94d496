// The kernels that there are (kernels/cuda/attention_launch.hpp names them).
#pragma once

#include "kernels/cuda/attend_task.hpp"
#include "kernels/cuda/gpu_launch.hpp"

namespace modalkv::MODALKV_GPU {

/// Of a kernel, for who divides the work.
struct AttendKernelSize {
  int rows;   ///< query rows of a block
  int warps;  ///< of a block
  int tiles;  ///< of 16 tokens, that a warp takes at a time
  int blocks_a_multiprocessor;
};

/// One pair of formats: kernels for head_dim and rows. `head_rows`: query rows of a KV head.
struct AttendFormat {
  bool (*has)(const KvFormat& format);
  AttendKernelSize (*size)(int head_dim, int head_rows);
  GpuError (*launch)(const AttendLaunch& launch, int splits, void* stream);
};

extern const AttendFormat kAttend16Bit[2];
extern const AttendFormat kAttend8Bit[2];
extern const AttendFormat kAttendMixed[2];
extern const AttendFormat kAttendInt4[3];
extern const AttendFormat kAttendSmall[3];
extern const AttendFormat kAttendAny;

}  // namespace modalkv::MODALKV_GPU
