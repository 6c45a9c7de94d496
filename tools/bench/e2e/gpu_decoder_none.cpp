#include "modalkv/error.hpp"
#include "tools/bench/e2e/cuda/gpu_decoder.hpp"

namespace modalkv {

std::unique_ptr<Decoder> gpu_decoder(GpuDriver&, const ModelGeometry&, Tokens, std::uint64_t) {
  throw Error("bench e2e: modalkv was built without CUDA or cuBLASLt");
}

}  // namespace modalkv
