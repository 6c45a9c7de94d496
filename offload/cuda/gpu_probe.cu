#include <cuda_runtime_api.h>

#include "offload/gpu_probe.hpp"

namespace modalkv {
namespace {

// One line, and the runtime's own error word cleared for whoever calls it next.
std::string describe(const char* call, cudaError_t error) {
  (void)cudaGetLastError();
  return std::string(call) + ": " + cudaGetErrorString(error) + " (cudart error " +
         std::to_string(static_cast<int>(error)) + ")";
}

}  // namespace

GpuProbe probe_gpus() {
  GpuProbe probe;
  int count = 0;  // left untouched where there is no driver
  if (const cudaError_t error = cudaGetDeviceCount(&count); error != cudaSuccess) {
    probe.reason = describe("cudaGetDeviceCount", error);
    return probe;
  }
  for (int device = 0; device < count; ++device) {
    cudaDeviceProp properties{};
    if (const cudaError_t error = cudaGetDeviceProperties(&properties, device);
        error != cudaSuccess) {
      return {{}, describe("cudaGetDeviceProperties", error)};
    }
    char pci_bus_id[32] = {};
    if (const cudaError_t error = cudaDeviceGetPCIBusId(pci_bus_id, sizeof pci_bus_id, device);
        error != cudaSuccess) {
      return {{}, describe("cudaDeviceGetPCIBusId", error)};
    }
    probe.gpus.push_back({properties.name, pci_bus_id,
                          static_cast<Bytes>(properties.totalGlobalMem), properties.major,
                          properties.minor});
  }
  if (probe.gpus.empty()) probe.reason = "the driver reports no GPU";
  return probe;
}

}  // namespace modalkv
