// What the tests of this folder run on. They are linked twice: as runtime_tests to threads and
// memory of this process, and as runtime_gpu_tests to an emulated GPU, which is then also what a
// Runtime finds.
#pragma once

#include <memory>
#include <optional>

#include "offload/cuda/cuda_driver.hpp"
#include "runtime/backend.hpp"

namespace modalkv {

/// 0 on the emulated GPU, else nothing: for RuntimeConfig::gpu.
std::optional<int> gpu_of_tests();

/// With queues for two host nodes.
class TestDevice {
 public:
  TestDevice()
      : backend_(gpu_of_tests() ? open_cuda_driver({}) : nullptr, 0, 0),
        device_(backend_.make_device(standard_queues(2))) {}
  Device& operator*() { return *device_; }

 private:
  Backend backend_;
  std::unique_ptr<Device> device_;
};

}  // namespace modalkv
