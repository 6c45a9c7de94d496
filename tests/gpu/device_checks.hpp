// Checks of a CudaDevice over any driver: the real GPU, or the emulated one that keeps the checks
// themselves right.
#pragma once

#include "offload/cuda/gpu_driver.hpp"
#include "tests/gpu/check_report.hpp"
#include "tests/gpu/kernel_cases.hpp"

namespace modalkv {

/// What offload/device.hpp promises: order, bytes, failures, events, bounds.
void check_device(GpuDriver& driver, CheckReport& report);

/// Each case in memory of the GPU, against perform(): all bytes, those between included. None may
/// take longer than `patience_ns`.
void check_kernels(GpuDriver& driver, const std::vector<KernelCase>& cases, CheckReport& report,
                   Nanos patience_ns = 20 * kSecond);

}  // namespace modalkv
