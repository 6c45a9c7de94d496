// In place of the driver of real GPUs: the linker finds this one first.
#include "modalkv/error.hpp"
#include "offload/cuda/cuda_driver.hpp"
#include "tests/offload/cuda/emulated_kernels.hpp"
#include "tests/runtime/test_device.hpp"

namespace modalkv {

std::optional<int> gpu_of_tests() {
  return 0;
}

std::unique_ptr<GpuDriver> open_cuda_driver(const CudaDriverOptions& options) {
  if (options.gpu != 0) throw Error("GPU: there is one, emulated, not so many");
  return std::make_unique<EmulatedGpu>(1, launch_kernels);
}

}  // namespace modalkv
