// Pools that a GPU copies from and to: the driver pins their memory.
#pragma once

#include "offload/cuda/gpu_driver.hpp"
#include "offload/memory_pinner.hpp"

namespace modalkv {

class GpuPinner final : public MemoryPinner {
 public:
  /// `driver` outlives it.
  explicit GpuPinner(GpuDriver& driver) : driver_(driver) {}

  std::string pin(std::span<std::byte> memory) override { return driver_.register_host(memory); }
  void unpin(std::span<std::byte> memory) override { driver_.unregister_host(memory); }

 private:
  GpuDriver& driver_;
};

}  // namespace modalkv
