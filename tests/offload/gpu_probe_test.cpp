#include "offload/gpu_probe.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <string>

namespace modalkv {
namespace {

TEST(GpuProbe, NamesItsGpusOrOneReason) {
  const GpuProbe probe = probe_gpus();
  ASSERT_EQ(probe.gpus.empty(), !probe.reason.empty()) << probe.reason;
  EXPECT_EQ(probe.reason.find('\n'), std::string::npos);
  for (const GpuInfo& gpu : probe.gpus) {
    EXPECT_FALSE(gpu.name.empty());
    EXPECT_GE(gpu.memory_bytes, kGiB);
    EXPECT_GE(gpu.compute_major, 5);
    // domain:bus:device.function
    EXPECT_EQ(std::count(gpu.pci_bus_id.begin(), gpu.pci_bus_id.end(), ':'), 2) << gpu.pci_bus_id;
  }
}

TEST(GpuProbe, ReasonSaysWhetherCudaWasBuilt) {
  const GpuProbe probe = probe_gpus();
  if (!probe.gpus.empty()) GTEST_SKIP() << "a GPU is here: " << probe.gpus.front().name;
  EXPECT_EQ(probe.reason == "built without CUDA", !MODALKV_BUILT_WITH_CUDA) << probe.reason;
}

TEST(GpuProbe, FindsThePromisedGpu) {
  if (std::getenv("MODALKV_EXPECT_GPU") == nullptr)
    GTEST_SKIP() << "no GPU promised (set MODALKV_EXPECT_GPU=1 where there is one)";
  const GpuProbe probe = probe_gpus();
  EXPECT_FALSE(probe.gpus.empty()) << probe.reason;
}

TEST(GpuProbe, SecondCallAgreesWithTheFirst) {
  const GpuProbe first = probe_gpus();
  const GpuProbe second = probe_gpus();
  EXPECT_EQ(first.gpus.size(), second.gpus.size());
  EXPECT_EQ(first.reason, second.reason);
}

}  // namespace
}  // namespace modalkv
