#include "kernels/cuda/encode_side.hpp"

namespace modalkv::MODALKV_GPU {

GpuError encode_values(const PageBatch& batch, int pages, int first_slot, int slots,
                       const GpuLaunch& launch) {
  return encode_any<true>(batch, pages, first_slot, slots, launch);
}

}  // namespace modalkv::MODALKV_GPU
