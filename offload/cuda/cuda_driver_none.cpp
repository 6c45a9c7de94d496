#include "modalkv/error.hpp"
#include "offload/cuda/cuda_driver.hpp"

namespace modalkv {

std::unique_ptr<GpuDriver> open_cuda_driver(const CudaDriverOptions&) {
  throw Error("GPU: built without CUDA");
}

}  // namespace modalkv
