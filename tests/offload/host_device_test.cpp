// What HostDevice has beside what every device promises: copies that take their time.
#include "offload/host_device.hpp"

#include <gtest/gtest.h>

#include <atomic>
#include <ctime>
#include <limits>

#include "tests/offload/devices.hpp"
#include "tests/offload/submit.hpp"

namespace modalkv {
namespace {

std::vector<QueueInfo> slow_link(double copy_bytes_per_s, Nanos copy_ns = 0) {
  std::vector<QueueInfo> queues = standard_queues(1);
  for (QueueInfo& queue : queues)
    if (queue.kind == QueueKind::h2d || queue.kind == QueueKind::d2h) {
      queue.copy_bytes_per_s = copy_bytes_per_s;
      queue.copy_ns = copy_ns;
    }
  return queues;
}

Nanos processor_ns() {
  timespec time{};
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
  return time.tv_sec * kSecond + time.tv_nsec;
}

// The copy would take an hour: whoever waits for it never begins, everyone else goes on, and the
// device ends at once.
TEST(SlowLink, WhatWaitsForACopyBeginsAfterItAndNothingElseDoes) {
  std::atomic<std::uint64_t> delivered{0};
  std::vector<std::byte> bytes(4096);
  {
    HostDevice device(slow_link(0.001));
    const auto space = device.register_space({SpaceInfo::Kind::host, 4096, bytes.data()}).space;
    const auto at = [&](Bytes offset) { return Address{space, offset, 64}; };
    const Ticket copy = submit(device, QueueKind::h2d, {Copy{at(0), at(64)}});
    submit(device, QueueKind::h2d, {Fill{at(128), 1}});
    submit(device, QueueKind::compute, {Fill{at(192), 1}}, {copy});
    EXPECT_EQ(device.export_event(copy, {&delivered, 1}), Status::ok);
    const Ticket other = submit(device, QueueKind::host, {Fill{at(256), 1}});
    const auto first = device.next_completion(10 * kSecond);
    ASSERT_TRUE(first);
    EXPECT_EQ(first->ticket, other);
    const Ticket after_other = submit(device, QueueKind::d2h, {Fill{at(320), 1}}, {other});
    const auto second = device.next_completion(10 * kSecond);
    ASSERT_TRUE(second);
    EXPECT_EQ(second->ticket, after_other);
    EXPECT_FALSE(device.next_completion(5 * kMillisecond));
    EXPECT_EQ(delivered, 0u);
  }
  EXPECT_EQ(bytes[128], std::byte{0}) << "behind the copy in its queue";
  EXPECT_EQ(bytes[192], std::byte{0}) << "waits for the copy";
  EXPECT_EQ(bytes[256], std::byte{1});
  EXPECT_EQ(delivered, 1u) << "as for all that a device leaves undone";
}

// No copy is faster than the link, and nobody computes while it waits.
TEST(SlowLink, CopiesTakeAtLeastTheirTimeAndNoProcessor) {
  HostDevice device(slow_link(1e6, kMillisecond));  // 1,000 bytes: 2 ms
  Memory memory(device, 2000);
  const Nanos begin_ns = device.now(), begin_processor_ns = processor_ns();
  std::vector<Ticket> copies;
  for (int i = 0; i < 20; ++i)
    copies.push_back(
        submit(device, QueueKind::h2d, {Copy{memory.at(0, 1000), memory.at(1000, 1000)}}));
  const Ticket last = submit(device, QueueKind::compute, {}, {copies.back()});
  const auto all = drain(device);
  ASSERT_EQ(all.size(), copies.size() + 1);
  for (std::size_t i = 0; i < copies.size(); ++i) {
    EXPECT_EQ(all[i].ticket, copies[i]);
    EXPECT_GE(all[i].at_ns - begin_ns, static_cast<Nanos>(i + 1) * 2 * kMillisecond);
  }
  EXPECT_EQ(all.back().ticket, last);
  EXPECT_LT(processor_ns() - begin_processor_ns, 20 * kMillisecond) << "of 40 ms that it took";
}

TEST(SlowLink, BothDirectionsHaveTheirOwn) {
  HostDevice device(slow_link(1e9));
  Memory memory(device, 64);
  const Ticket up = submit(device, QueueKind::h2d, {Copy{memory.at(0, 8), memory.at(8, 8)}});
  const Ticket down = submit(device, QueueKind::d2h, {Copy{memory.at(16, 8), memory.at(24, 8)}});
  const Ticket both = submit(device, QueueKind::compute, {Fill{memory.at(32, 8), 1}}, {up, down});
  EXPECT_EQ(drain(device).back().ticket, both);
}

TEST(HostDevice, RefusesQueuesThatMakeNoSense) {
  EXPECT_THROW(HostDevice({{.kind = QueueKind::host, .threads = 0}}), Error);
  EXPECT_THROW(HostDevice({{.kind = QueueKind::h2d, .copy_bytes_per_s = -1}}), Error);
  EXPECT_THROW(HostDevice({{.kind = QueueKind::h2d, .copy_ns = -1}}), Error);
  EXPECT_THROW(HostDevice(slow_link(std::numeric_limits<double>::quiet_NaN())), Error);
}

}  // namespace
}  // namespace modalkv
