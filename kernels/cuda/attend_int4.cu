#include "kernels/cuda/attend_instances.hpp"

namespace modalkv::MODALKV_GPU {

const AttendFormat kAttendInt4[3] = {attend_format<int4_token_head(), int4_token_head()>(),
                                     attend_format<int4_grouped(64), int4_grouped(64)>(),
                                     attend_format<int4_grouped(32), int4_grouped(32)>()};

}  // namespace modalkv::MODALKV_GPU
