// Which GPUs this process can use. Works, and says why there are none, on a machine without any.
#pragma once

#include <string>
#include <vector>

#include "modalkv/units.hpp"

namespace modalkv {

struct GpuInfo {
  std::string name;
  std::string pci_bus_id;  ///< "0000:65:00.0": domain, bus, device, function
  Bytes memory_bytes = 0;
  int compute_major = 0;  ///< compute capability 9.0 is {9, 0}
  int compute_minor = 0;
};

struct GpuProbe {
  std::vector<GpuInfo> gpus;  ///< in CUDA's order
  std::string reason;         ///< one line why `gpus` is empty; empty where it is not
};

/// Asks the CUDA runtime, where modalkv was built with it. Creates no context, never throws on a
/// missing or unfit driver, leaves no sticky error. Thread-safe; the first call may take 100 ms.
GpuProbe probe_gpus();

}  // namespace modalkv
