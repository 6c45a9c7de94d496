// A machine that is not quite what its profile says: by chance, to see how robust a plan is, or as
// it was found to be.
#pragma once

#include <cstdint>

#include "modalkv/hardware.hpp"

namespace modalkv {

/// Every rate and latency of `hardware` times its own factor, drawn from [1 - fraction, 1 +
/// fraction] by `seed`. Sizes stay. `fraction` is in [0, 1).
HardwareProfile perturbed(const HardwareProfile& hardware, double fraction, std::uint64_t seed);

/// How much faster than its profile a machine is: factors of rates, divisors of latencies.
struct RateFactors {
  double gpu = 1;
  double link = 1;
  double host = 1;  ///< memory of the host
};

/// `hardware` with every rate and latency of these changed; such numbers count as fitted. Disk and
/// sizes stay.
HardwareProfile scaled(const HardwareProfile& hardware, const RateFactors& factors);

}  // namespace modalkv
