#include "offload/gpu_probe.hpp"

namespace modalkv {

GpuProbe probe_gpus() {
  return {{}, "built without CUDA"};
}

}  // namespace modalkv
