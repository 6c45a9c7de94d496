// A decoder on a GPU: matrices by cuBLASLt in 16 bits with 32-bit sums, the rest by small kernels,
// all on one stream.
#pragma once

#include <memory>

#include "offload/cuda/gpu_driver.hpp"
#include "tools/bench/e2e/decoder.hpp"

namespace modalkv {

/// `driver` outlives it, and so do the words of events. Throws Error where the weights do not fit.
std::unique_ptr<Decoder> gpu_decoder(GpuDriver& driver, const ModelGeometry& model, Tokens max_rows,
                                     std::uint64_t seed);

}  // namespace modalkv
