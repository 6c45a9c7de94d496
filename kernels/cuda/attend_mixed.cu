#include "kernels/cuda/attend_instances.hpp"

namespace modalkv::MODALKV_GPU {

const AttendFormat kAttendMixed[2] = {
    attend_format<int8_token_head(), int4_token_head()>(),
    attend_format<ElementFormat{NumberFormat::int4, 0, 2, 2, true}, int4_token_head()>()};

}  // namespace modalkv::MODALKV_GPU
