// The checks of a real GPU, on the emulated one: so that they are right before a GPU is there.
#include <gtest/gtest.h>

#include "tests/gpu/device_checks.hpp"
#include "tests/gpu/gpu_bench.hpp"
#include "tests/offload/cuda/emulated_kernels.hpp"

namespace modalkv {
namespace {

std::string all_of(const CheckReport& report) {
  std::string text;
  for (const std::string& failure : report.failures()) text += failure + '\n';
  return text;
}

TEST(GpuCheck, DeviceChecksPassOnTheEmulatedGpu) {
  EmulatedGpu gpu;
  CheckReport report;
  check_device(gpu, report);
  EXPECT_EQ(all_of(report), "");
  EXPECT_GE(report.cases(), 15);
}

// By perform(): the checks, not the kernels.
TEST(GpuCheck, KernelChecksPassWhereTheGpuIsTheHost) {
  EmulatedGpu gpu;
  CheckReport report;
  check_kernels(gpu, kernel_cases(true), report);
  EXPECT_EQ(all_of(report), "");
  EXPECT_GE(report.cases(), 20);
}

// The kernels: what a real GPU will be asked.
TEST(GpuCheck, KernelChecksPassOnEmulatedKernels) {
  EmulatedGpu gpu(1, launch_kernels);
  CheckReport report;
  check_kernels(gpu, kernel_cases(true), report);
  EXPECT_EQ(all_of(report), "");
}

TEST(GpuCheckNightly, AllKernelChecksPassOnEmulatedKernels) {
  EmulatedGpu gpu(1, launch_kernels);
  CheckReport report;
  std::vector<KernelCase> cases = kernel_cases(false);
  // A prefill takes minutes.
  std::erase_if(cases,
                [](const KernelCase& one) { return one.name.find("-128x") != std::string::npos; });
  check_kernels(gpu, cases, report, 600 * kSecond);
  EXPECT_EQ(all_of(report), "");
}

TEST(GpuCheckNightly, AllKernelChecksPassWhereTheGpuIsTheHost) {
  EmulatedGpu gpu;
  CheckReport report;
  check_kernels(gpu, kernel_cases(false), report);
  EXPECT_EQ(all_of(report), "");
}

// A GPU that flips a bit of each thousandth byte, or writes between: each case must see it.
TEST(GpuCheck, AWrongByteAnywhereIsFound) {
  for (const KernelCase& one : kernel_cases(true)) {
    EmulatedGpu gpu(1, [&](std::span<const Op> ops, SpaceMemory memory, std::uint32_t* status) {
      launch_on_host(ops, memory, status);
      memory[0][one.memory.size() - 1] ^= std::byte{1};  // a red zone
    });
    CheckReport report;
    check_kernels(gpu, {one}, report);
    EXPECT_EQ(report.failures().size(), 1u) << one.name;
  }
}

TEST(GpuCheck, BenchmarksRunOnTheEmulatedGpu) {
  EmulatedGpu gpu;
  const auto all = measure_gpu(gpu, 0.004);
  EXPECT_GE(all.size(), 20u);
  for (const Measured& one : all) EXPECT_GT(one.value, 0) << one.what;
}

}  // namespace
}  // namespace modalkv
