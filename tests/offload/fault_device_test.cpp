#include "offload/fault_device.hpp"

#include <gtest/gtest.h>

#include "tests/offload/devices.hpp"

namespace modalkv {
namespace {

std::vector<Op> fill(const Memory& memory, Bytes page, std::uint8_t value) {
  return {Fill{memory.at(page * 64, 64), value}};
}

TEST(FaultDevice, AnInjectedFailureCancelsItsSuccessorsAndSpoilsItsDestination) {
  Sim sim;
  FaultDevice device(sim.device, {.seed = 1, .fail = 1});
  Memory memory(device, 4096);
  const QueueId queue = *find_queue(device, QueueKind::compute);
  const Ticket bad = device.submit(queue, fill(memory, 0, 1), {}).ticket;
  const std::vector<Ticket> after{bad};
  const Ticket next =
      device.submit(*find_queue(device, QueueKind::h2d), fill(memory, 1, 1), after).ticket;
  const auto all = drain(device);
  EXPECT_EQ(outcome(all, bad), Status::io_error);
  EXPECT_EQ(outcome(all, next), Status::cancelled);
  EXPECT_NE(memory[0], 1);
  EXPECT_EQ(memory[64], 0) << "a cancelled group does nothing";
  EXPECT_EQ(device.injected().fail, 1u);
}

TEST(FaultDevice, StrikesOnlyWhereThePlanSays) {
  Sim sim;
  const QueueId compute = *find_queue(sim.device, QueueKind::compute);
  const QueueId host = *find_queue(sim.device, QueueKind::host);
  FaultDevice device(sim.device, {.busy = 1, .strikes = [&](QueueId queue, auto ops) {
                                    return queue == compute && !ops.empty();
                                  }});
  Memory memory(device, 4096);
  EXPECT_EQ(device.submit(compute, fill(memory, 0, 1), {}).status, Status::busy);
  EXPECT_EQ(device.submit(compute, {}, {}).status, Status::ok);
  EXPECT_EQ(device.submit(host, fill(memory, 0, 1), {}).status, Status::ok);
  EXPECT_EQ(device.injected().busy, 1u);
}

TEST(FaultDevice, ChecksumsFindCorruption) {
  Sim sim;
  FaultDevice device(sim.device, {.seed = 1, .corrupt = 0.5});
  Memory memory(device, 64 * 64);
  const QueueId queue = *find_queue(device, QueueKind::compute);
  int corrupted = 0;
  const std::uint64_t rounds = 200;
  for (std::uint64_t i = 0; i < rounds; ++i) {
    const auto value = static_cast<std::uint8_t>(i % 50);
    const std::uint64_t before = device.injected().corrupt;
    ASSERT_EQ(device.submit(queue, fill(memory, 0, value), {}).status, Status::ok);
    const bool hit = device.injected().corrupt > before;
    drain(device);
    EXPECT_EQ(memory[62], value);
    EXPECT_EQ(memory[63] != value, hit);
    corrupted += hit;
  }
  EXPECT_GT(corrupted, 60);
  EXPECT_LT(corrupted, 140);
}

TEST(FaultDevice, LateCompletionsChangeOnlyTheOrderOfReports) {
  Sim sim;
  FaultDevice device(sim.device, {.seed = 3, .late = 0.3});
  const QueueId queue = *find_queue(device, QueueKind::compute);
  std::vector<Ticket> tickets;
  for (int i = 0; i < 100; ++i) tickets.push_back(device.submit(queue, {}, {}).ticket);
  const auto all = drain(device);
  ASSERT_EQ(all.size(), tickets.size());
  bool in_order = true;
  for (std::size_t i = 0; i < all.size(); ++i) {
    EXPECT_EQ(outcome(all, tickets[i]), Status::ok);
    in_order = in_order && all[i].ticket == tickets[i];
  }
  EXPECT_FALSE(in_order);
}

TEST(FaultDevice, LostCompletionsAreCounted) {
  Host host;
  FaultDevice device(host.device, {.seed = 4, .lost = 0.5});
  const QueueId queue = *find_queue(device, QueueKind::compute);
  for (int i = 0; i < 100; ++i) ASSERT_EQ(device.submit(queue, {}, {}).status, Status::ok);
  EXPECT_EQ(drain(device).size() + device.injected().lost, 100u);
  EXPECT_GT(device.injected().lost, 20u);
}

TEST(FaultDevice, TheSeedDecides) {
  const auto run = [](std::uint64_t seed) {
    Sim sim;
    FaultDevice device(sim.device, {.seed = seed, .busy = 0.2, .fail = 0.2});
    std::vector<Status> statuses;
    for (int i = 0; i < 60; ++i) {
      const Submitted submitted = device.submit(*find_queue(device, QueueKind::compute), {}, {});
      statuses.push_back(submitted.status);
      for (const Completion& completion : drain(device)) statuses.push_back(completion.status);
    }
    return statuses;
  };
  EXPECT_EQ(run(1), run(1));
  EXPECT_NE(run(1), run(2));
}

}  // namespace
}  // namespace modalkv
