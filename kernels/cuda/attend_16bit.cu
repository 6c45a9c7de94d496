#include "kernels/cuda/attend_instances.hpp"

namespace modalkv::MODALKV_GPU {

const AttendFormat kAttend16Bit[2] = {attend_format<fp16(), fp16()>(),
                                      attend_format<bf16(), bf16()>()};

}  // namespace modalkv::MODALKV_GPU
