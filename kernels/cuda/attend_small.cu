#include "kernels/cuda/attend_instances.hpp"

namespace modalkv::MODALKV_GPU {

const AttendFormat kAttendSmall[3] = {attend_format<int2_grouped(64), int2_grouped(64)>(),
                                      attend_format<nvfp4(), nvfp4()>(),
                                      attend_format<mxfp4(), mxfp4()>()};

}  // namespace modalkv::MODALKV_GPU
