#include "kernels/cuda/attend_instances.hpp"

namespace modalkv::MODALKV_GPU {

const AttendFormat kAttend8Bit[2] = {attend_format<fp8_e4m3(), fp8_e4m3()>(),
                                     attend_format<int8_token_head(), int8_token_head()>()};

}  // namespace modalkv::MODALKV_GPU
