// A machine that is not quite what its profile says, to see how robust a plan is.
#pragma once

#include <cstdint>

#include "modalkv/hardware.hpp"

namespace modalkv {

/// Every rate and latency of `hardware` times its own factor, drawn from [1 - fraction, 1 +
/// fraction] by `seed`. Sizes stay. `fraction` is in [0, 1).
HardwareProfile perturbed(const HardwareProfile& hardware, double fraction, std::uint64_t seed);

}  // namespace modalkv
