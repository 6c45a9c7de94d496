#include "runtime/backend.hpp"

#include <fmt/format.h>

#include <new>

#include "offload/cuda/cuda_device.hpp"
#include "offload/host_device.hpp"

namespace modalkv {
namespace {

constexpr std::align_val_t kAlignment{4096};

}  // namespace

void Backend::Free::operator()(std::byte* memory) const {
  ::operator delete(memory, kAlignment);
}

Backend::Backend(std::unique_ptr<GpuDriver> gpu, Bytes device_bytes, Bytes tables_bytes)
    : gpu_(std::move(gpu)) {
  for (const Bytes bytes : {device_bytes, tables_bytes})
    if (bytes < 0) throw Error(fmt::format("runtime: {} bytes of memory make no sense", bytes));
  if (gpu_ != nullptr) {
    gpu_pinner_ = std::make_unique<GpuPinner>(*gpu_);
    if (device_bytes > 0) device_memory_ = gpu_->make_device_memory(device_bytes);
    if (tables_bytes > 0) tables_ = gpu_->make_pinned(tables_bytes);
  } else {
    device_memory_ = slab(device_bytes);
    tables_ = slab(tables_bytes);
  }
}

Backend::~Backend() = default;

MemoryPinner& Backend::pinner() {
  if (gpu_pinner_ != nullptr) return *gpu_pinner_;
  return mlock_pinner_;
}

std::unique_ptr<Device> Backend::make_device(std::vector<QueueInfo> queues) {
  if (gpu_ == nullptr) return std::make_unique<HostDevice>(std::move(queues));
  // The pools pin what they grow by, and the tables are.
  return std::make_unique<CudaDevice>(*gpu_, std::move(queues),
                                      CudaDeviceOptions{.pins_host_spaces = false});
}

// Memory of the process that stands in for a device's, and for tables.
std::span<std::byte> Backend::slab(Bytes bytes) {
  if (bytes == 0) return {};
  const auto size = static_cast<std::size_t>(bytes);
  slabs_.emplace_back(static_cast<std::byte*>(::operator new(size, kAlignment, std::nothrow)));
  if (slabs_.back() == nullptr)
    throw Error(fmt::format("runtime: {} bytes of memory cannot be had", bytes));
  return {slabs_.back().get(), size};
}

}  // namespace modalkv
