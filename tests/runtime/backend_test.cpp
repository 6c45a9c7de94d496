// What a runtime on a GPU is made of, on an emulated one.
#include "runtime/backend.hpp"

#include <gtest/gtest.h>

#include "tests/offload/devices.hpp"

namespace modalkv {
namespace {

TEST(Backend, OfAGpuHasItsMemoryAndPinsThroughIt) {
  auto driver = std::make_unique<EmulatedGpu>();
  EmulatedGpu& gpu = *driver;
  std::vector<std::byte> pool(4096);
  Backend backend(std::move(driver), kMiB, 64 * kKiB);
  EXPECT_TRUE(backend.has_gpu());
  EXPECT_EQ(backend.device_memory().size(), static_cast<std::size_t>(kMiB));
  EXPECT_EQ(backend.tables().size(), static_cast<std::size_t>(64 * kKiB));
  EXPECT_TRUE(gpu.reach(backend.device_memory().data()).gpu);
  EXPECT_EQ(backend.pinner().pin(pool), "");
  EXPECT_EQ(gpu.registered_ranges(), 1u);
  {
    // Pools pin what they grow by: the device does not.
    const auto device = backend.make_device(standard_queues(1));
    std::vector<std::byte> other(4096);
    const auto space = device->register_space({SpaceInfo::Kind::host, 4096, pool.data()}).space;
    const auto submitted = device->submit(find_queue(*device, QueueKind::h2d).value(),
                                          std::vector<Op>{Fill{{space, 0, 64}, 7}}, {});
    EXPECT_EQ(submitted.status, Status::ok);
    EXPECT_EQ(outcome(drain(*device), submitted.ticket), Status::ok);
    EXPECT_EQ(pool[63], std::byte{7});
    EXPECT_EQ(gpu.registered_ranges(), 1u);
  }
  backend.pinner().unpin(pool);
  EXPECT_EQ(gpu.registered_ranges(), 0u);
  gpu.fail(GpuCall::register_host);
  EXPECT_NE(backend.pinner().pin(pool), "");
}

TEST(Backend, WithoutAGpuIsThreadsAndMemoryOfThisProcess) {
  Backend backend(nullptr, kMiB, 64 * kKiB);
  EXPECT_FALSE(backend.has_gpu());
  backend.device_memory().front() = std::byte{1};
  EXPECT_EQ(drain(*backend.make_device(standard_queues(1))).size(), 0u);
}

TEST(Backend, ThatHasNoMemoryIsAnError) {
  auto driver = std::make_unique<EmulatedGpu>();
  driver->fail(GpuCall::make_device_memory);
  EXPECT_THROW(Backend(std::move(driver), kMiB, kKiB), Error);
  EXPECT_THROW(Backend(nullptr, -1, kKiB), Error);
}

}  // namespace
}  // namespace modalkv
