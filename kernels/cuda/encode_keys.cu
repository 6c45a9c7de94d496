#include "kernels/cuda/encode_side.hpp"

namespace modalkv::MODALKV_GPU {

GpuError encode_keys(const PageBatch& batch, int pages, int first_slot, int slots,
                     const GpuLaunch& launch) {
  return encode_any<false>(batch, pages, first_slot, slots, launch);
}

}  // namespace modalkv::MODALKV_GPU
