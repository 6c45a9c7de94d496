// A GPU, or what a test puts in its place, as the machine of an end-to-end run.
#pragma once

#include <memory>
#include <string>

#include "offload/cuda/gpu_driver.hpp"
#include "tools/bench/e2e/e2e_machine.hpp"

namespace modalkv {

/// `decoder` may refer to `driver`. Throws Error where memory is short.
std::unique_ptr<E2eMachine> gpu_e2e_machine(std::unique_ptr<GpuDriver> driver,
                                            std::unique_ptr<Decoder> decoder, std::string name,
                                            const E2eMachineConfig& config);

/// The first GPU with a decoder of its own. Throws Error where there is none.
std::unique_ptr<E2eMachine> first_gpu_e2e_machine(const E2eMachineConfig& config);

}  // namespace modalkv
