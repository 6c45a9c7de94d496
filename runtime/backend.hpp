// What a runtime's device is made of: a GPU, or threads and memory of this process that stand in
// for one.
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "offload/cuda/gpu_driver.hpp"
#include "offload/cuda/gpu_pinner.hpp"
#include "offload/device.hpp"

namespace modalkv {

/// Outlives its device and what it pins.
class Backend {
 public:
  /// `gpu`: nothing for none. Throws Error where there is no memory.
  Backend(std::unique_ptr<GpuDriver> gpu, Bytes device_bytes, Bytes tables_bytes);
  ~Backend();
  Backend(Backend&&) = delete;

  bool has_gpu() const { return gpu_ != nullptr; }
  MemoryPinner& pinner();
  std::span<std::byte> device_memory() const { return device_memory_; }
  /// Written by the host, read by the device.
  std::span<std::byte> tables() const { return tables_; }
  std::unique_ptr<Device> make_device(std::vector<QueueInfo> queues);

 private:
  struct Free {
    void operator()(std::byte* memory) const;
  };
  std::span<std::byte> slab(Bytes bytes);

  std::unique_ptr<GpuDriver> gpu_;
  std::unique_ptr<GpuPinner> gpu_pinner_;
  MlockPinner mlock_pinner_;
  std::vector<std::unique_ptr<std::byte, Free>> slabs_;
  std::span<std::byte> device_memory_, tables_;
};

}  // namespace modalkv
