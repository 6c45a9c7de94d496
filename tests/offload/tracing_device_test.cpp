#include "offload/tracing_device.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <random>
#include <set>
#include <thread>

#include "offload/trace_json.hpp"
#include "tests/offload/devices.hpp"
#include "tests/offload/submit.hpp"

namespace modalkv {
namespace {

// In virtual time every duration is known: what is estimated can be compared with it.
TEST(TracingDevice, EstimatesBeginsBusyTimesAndStallsOfAKnownStep) {
  Traced<Sim> world;
  TracingDevice& device = world.device;
  Memory host(device, 8 * kMiB), gpu(device, 8 * kMiB, SpaceInfo::Kind::device);
  device.label({.step = 7, .layer = 3});
  const Ticket computed = submit(device, QueueKind::compute, {EngineWork{10 * kMicrosecond}});
  const Ticket copied =
      submit(device, QueueKind::h2d, {Copy{host.at(0, 4 * kMiB), gpu.at(0, 4 * kMiB)}});
  submit(device, QueueKind::compute, {EngineWork{kMicrosecond}}, {copied});
  const auto all = drain(device);
  ASSERT_EQ(all.size(), 3u);

  const std::vector<TracedGroup> groups = device.groups();
  ASSERT_EQ(groups.size(), 3u);
  const auto of = [&](QueueKind kind, std::size_t nth) {
    for (const TracedGroup& group : groups)
      if (group.queue == queue_of(device, kind) && nth-- == 0) return group;
    ADD_FAILURE();
    return TracedGroup{};
  };
  const TracedGroup first = of(QueueKind::compute, 0), second = of(QueueKind::compute, 1),
                    copy = of(QueueKind::h2d, 0);
  EXPECT_EQ(first.begin_ns, first.submitted_ns);
  EXPECT_EQ(first.end_ns - first.begin_ns, 10 * kMicrosecond);
  EXPECT_EQ(copy.what, "copy");
  EXPECT_EQ(copy.bytes, 4 * kMiB);
  EXPECT_EQ(copy.label.step, 7u);
  EXPECT_EQ(copy.label.layer, 3);
  EXPECT_EQ(second.begin_ns, copy.end_ns) << "it waited for the copy, which takes longest";
  EXPECT_EQ(device.stalls().link_ns, copy.end_ns - first.end_ns);
  EXPECT_EQ(device.stalls().host_ns, 0);
  const QueueUse& link = device.use()[queue_of(device, QueueKind::h2d).index];
  EXPECT_EQ(link.bytes, 4 * kMiB);
  EXPECT_EQ(link.groups, 1);
  EXPECT_EQ(link.busy_ns, copy.end_ns - copy.begin_ns);
  EXPECT_NEAR(static_cast<double>(link.busy_ns), 4 * kMiB / 25.0, 10'000)
      << "the machine's link makes 25 GB/s";
  EXPECT_EQ(device.end_of(computed)->at_ns, first.end_ns);
}

// Queries go down, the cores attend, the result comes up: waiting for that is waiting for the host.
TEST(TracingDevice, TellsWaitingForTheHostFromWaitingForTheLink) {
  Traced<Sim> world;
  TracingDevice& device = world.device;
  Memory host(device, kMiB), gpu(device, kMiB, SpaceInfo::Kind::device);
  const Ticket attended = submit(device, QueueKind::host, {EngineWork{50 * kMicrosecond}});
  const Ticket up =
      submit(device, QueueKind::h2d, {Copy{host.at(0, kMiB), gpu.at(0, kMiB)}}, {attended});
  submit(device, QueueKind::compute, {EngineWork{kMicrosecond}}, {up});
  drain(device);
  const Nanos host_end_ns = device.end_of(attended)->at_ns, copy_end_ns = device.end_of(up)->at_ns;
  EXPECT_EQ(device.stalls().host_ns, host_end_ns);
  EXPECT_EQ(device.stalls().link_ns, copy_end_ns - host_end_ns);
}

TEST(TracingDevice, TakesNothingDownUntilToldTo) {
  Host inner;
  TracingDevice device(inner.device, 16);
  submit(device, QueueKind::compute, {});
  device.record(true);
  submit(device, QueueKind::compute, {});
  EXPECT_EQ(drain(device).size(), 2u);
  EXPECT_EQ(device.groups().size(), 1u);
  EXPECT_EQ(device.use()[queue_of(device, QueueKind::compute).index].groups, 1);
}

TEST(TracingDevice, RemembersTheLatestGroupsAndStepsOnly) {
  Sim inner;
  TracingDevice device(inner.device, 10);
  device.record(true);
  for (std::uint64_t step = 0; step < 25; ++step) {
    device.label({.step = step});
    submit(device, QueueKind::compute, {EngineWork{1}});
    drain(device);
  }
  EXPECT_EQ(device.groups().size(), 10u);
  EXPECT_EQ(device.groups().front().label.step, 15u);
  EXPECT_EQ(device.groups(22).size(), 3u);
}

// Every group that completed is in the file once, and no two of a queue overlap.
template <typename World>
void check_random_program(World& world, Device& inner, std::uint64_t seed) {
  SCOPED_TRACE(seed);
  std::mt19937_64 random(seed);
  TracingDevice device(inner, 4096);
  device.record(true);
  Memory memory(device, 1024);
  std::vector<Ticket> tickets;
  std::vector<Completion> completions;
  std::size_t submitted = 0;
  const auto kinds = {QueueKind::h2d, QueueKind::d2h, QueueKind::compute, QueueKind::host};
  for (int i = 0; i < 300; ++i) {
    const std::size_t nth = random() % kinds.size();
    const QueueKind kind = *(kinds.begin() + nth);
    // A quarter of the memory each: nothing orders the queues.
    const auto at = static_cast<Bytes>(4 * nth + random() % 4) * 64;
    std::vector<Ticket> after;
    for (std::size_t n = random() % 3; n > 0 && !tickets.empty(); --n)
      after.push_back(tickets[random() % tickets.size()]);
    std::vector<Op> ops(random() % 3, Op{Fill{memory.at(at, 64), 1}});
    const Submitted result = device.submit(queue_of(device, kind), ops, after);
    if (result.status == Status::ok) {
      ++submitted;
      tickets.push_back(result.ticket);
    }
    while (random() % 2 == 0) {
      const auto completion = device.next_completion(0);
      if (!completion) break;
      completions.push_back(*completion);
    }
  }
  for (const Completion& completion : drain(device)) completions.push_back(completion);
  EXPECT_LE(completions.size(), submitted);

  const auto json = nlohmann::json::parse(trace_json(device.queues(), device.groups()));
  std::set<int> groups, tracks;
  std::map<int, double> ends_us;
  std::multiset<double> found_ends_us, expected_ends_us;
  for (const auto& event : json.at("traceEvents")) {
    if (event.at("ph") == "M") {
      if (event.at("name") == "thread_name") tracks.insert(event.at("tid").get<int>());
      continue;
    }
    ASSERT_EQ(event.at("ph"), "X");
    EXPECT_TRUE(groups.insert(event.at("args").at("group").get<int>()).second);
    const int track = event.at("tid");
    EXPECT_TRUE(tracks.contains(track));
    const double begin_us = event.at("ts"), length_us = event.at("dur");
    EXPECT_GE(length_us, 0);
    EXPECT_GE(event.at("args").at("waited_us"), 0);
    EXPECT_GE(begin_us + 1e-4, ends_us[track]) << "the one before has not ended";
    ends_us[track] = begin_us + length_us;
  }
  EXPECT_EQ(groups.size(), completions.size());
  EXPECT_EQ(tracks.size(), device.queues().size());
  std::int64_t counted = 0;
  for (const QueueUse& use : device.use()) counted += use.groups;
  EXPECT_EQ(counted, static_cast<std::int64_t>(completions.size()));
  static_cast<void>(world);
}

TEST(TracingDevice, TracesHaveEveryGroupOnceAndNoOverlapInAQueue) {
  for (std::uint64_t seed = 1; seed <= 10; ++seed) {
    Host host;
    check_random_program(host, host.device, seed);
    JitteredSim sim;
    check_random_program(sim, sim.device, seed);
  }
}

TEST(TracingDevice, LateLostAndFailedGroupsDoNoHarm) {
  for (std::uint64_t seed = 1; seed <= 10; ++seed) {
    Sim sim;
    FaultDevice faults(sim.device,
                       {.seed = seed, .busy = 0.05, .fail = 0.05, .late = 0.1, .lost = 0.1});
    check_random_program(sim, faults, seed);
  }
}

}  // namespace
}  // namespace modalkv
