// What CudaDevice has beside what every device promises: streams that run ahead, a GPU that fails.
#include "offload/cuda/cuda_device.hpp"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <new>
#include <numeric>
#include <thread>

#include "tests/offload/devices.hpp"
#include "tests/offload/submit.hpp"

namespace modalkv {
namespace {

Submitted try_submit(Device& device, QueueKind kind, std::vector<Op> ops,
                     std::vector<Ticket> after = {}) {
  return device.submit(queue_of(device, kind), ops, after);
}

// Destroyed after the device, which may still copy when it goes.
struct Bytes4K {
  std::vector<std::byte> bytes = std::vector<std::byte>(4096);
  SpaceId space{};
  void add_to(Device& device, SpaceInfo::Kind kind = SpaceInfo::Kind::host) {
    const auto registered = device.register_space({kind, 4096, bytes.data()});
    ASSERT_EQ(registered.status, Status::ok);
    space = registered.space;
  }
  Address at(Bytes offset, Bytes count) const { return {space, offset, count}; }
};

TEST(CudaDevice, NeighbouringCopiesAreOneAndAllOfAGroupOneCall) {
  Bytes4K host, gpu;
  EmulatedGpu driver;
  CudaDevice device(driver);
  host.add_to(device);
  gpu.add_to(device, SpaceInfo::Kind::device);
  std::iota(reinterpret_cast<std::uint8_t*>(host.bytes.data()),
            reinterpret_cast<std::uint8_t*>(host.bytes.data()) + 4096, std::uint8_t{0});
  std::vector<Op> copies;
  for (Bytes at = 0; at < 4096; at += 64) copies.push_back(Copy{host.at(at, 64), gpu.at(at, 64)});
  submit(device, QueueKind::h2d, copies);
  EXPECT_EQ(drain(device).at(0).status, Status::ok);
  EXPECT_EQ(gpu.bytes, host.bytes);
  EXPECT_EQ(driver.calls(GpuCall::copy), 1);
}

// The second reads what the first writes, the third writes what the second reads: three calls.
TEST(CudaDevice, CopiesOfAGroupThatDependKeepTheirOrder) {
  for (std::uint64_t seed = 1; seed <= 20; ++seed) {
    Bytes4K memory;
    EmulatedGpu driver(seed);
    CudaDevice device(driver);
    memory.add_to(device);
    memory.bytes[0] = std::byte{1};
    memory.bytes[192] = std::byte{9};
    submit(device, QueueKind::h2d,
           {Copy{memory.at(0, 64), memory.at(64, 64)}, Copy{memory.at(64, 64), memory.at(128, 64)},
            Copy{memory.at(192, 64), memory.at(64, 64)}});
    EXPECT_EQ(drain(device).at(0).status, Status::ok);
    EXPECT_EQ(memory.bytes[128], std::byte{1}) << "seed " << seed;
    EXPECT_EQ(memory.bytes[64], std::byte{9}) << "seed " << seed;
    EXPECT_EQ(driver.calls(GpuCall::copy), 3);
  }
}

TEST(CudaDevice, JoinedCopiesDoNotSpanRegistrations) {
  std::vector<std::byte> from(4 * kMiB), to(4 * kMiB);
  EmulatedGpu driver;
  CudaDevice device(driver);
  const auto a = device.register_space({SpaceInfo::Kind::host, 4 * kMiB, from.data()}).space;
  const auto b = device.register_space({SpaceInfo::Kind::device, 4 * kMiB, to.data()}).space;
  CopyRun run(64);
  for (Bytes at = 0; at < 4 * kMiB; at += 256 * kKiB) {
    const GpuCopy copy{to.data() + at, from.data() + at, 256 * kKiB};
    ASSERT_TRUE(run.independent(copy));
    run.add(copy, at % CopyRun::kJoinedBytes != 0);
  }
  EXPECT_EQ(run.copies().size(), 4u);
  EXPECT_NE(a, b);
}

// The device, not the caller's thread, lets streams go on when a thread's group has ended.
TEST(CudaDevice, StreamsWaitForThreadsAndThreadsForStreams) {
  Bytes4K memory;
  EmulatedGpu driver;
  CudaDevice device(driver);
  memory.add_to(device);
  std::atomic<std::uint64_t> gate{0}, done{0};
  Ticket last = device.import_event({&gate, 1}).ticket;
  for (std::uint8_t i = 0; i < 60; ++i) {
    const QueueKind kinds[] = {QueueKind::compute, QueueKind::host, QueueKind::h2d, QueueKind::d2h};
    const QueueKind kind = kinds[i % 4];
    last =
        submit(device, kind,
               {Fill{memory.at(i, 64), i}, Checksum{memory.at(0, 64), memory.at(1024 + 8 * i, 8)}},
               {last});
  }
  EXPECT_EQ(device.export_event(last, {&done, 1}), Status::ok);
  gate = 1;
  while (done.load() < 1) std::this_thread::yield();
  for (const Completion& completion : drain(device)) EXPECT_EQ(completion.status, Status::ok);
  EXPECT_EQ(memory.bytes[59], std::byte{59});
}

// Kernels know that what they waited for on the host has failed.
TEST(CudaDevice, KernelsDoNothingAfterAFailureOnTheHost) {
  Bytes4K memory;
  EmulatedGpu driver;
  CudaDevice device(driver);
  memory.add_to(device);
  std::atomic<std::uint64_t> gate{0};
  const Ticket event = device.import_event({&gate, 1}).ticket;
  const Ticket bad =
      submit(device, QueueKind::host, {Verify{memory.at(16, 16), memory.at(32, 8)}}, {event});
  memory.bytes[16] = std::byte{1};
  const Ticket next = submit(device, QueueKind::compute, {Fill{memory.at(128, 64), 1}}, {bad});
  gate = 1;
  const auto all = drain(device);
  EXPECT_EQ(outcome(all, bad), Status::checksum);
  EXPECT_EQ(outcome(all, next), Status::cancelled);
  EXPECT_EQ(memory.bytes[128], std::byte{0});
}

// What a stream cannot take without making its caller wait stays with the device.
TEST(CudaDevice, AFullStreamMakesNobodyWait) {
  Bytes4K memory;
  EmulatedGpu driver;
  CudaDevice device(driver, standard_queues(1), {.max_commands = 50});
  memory.add_to(device);
  std::atomic<std::uint64_t> gate{0};
  const Ticket event = device.import_event({&gate, 1}).ticket;
  std::vector<Ticket> tickets;
  for (std::uint8_t i = 0; i < 200; ++i)
    tickets.push_back(submit(device, QueueKind::compute,
                             std::vector<Op>(i == 100 ? 300 : 3, Fill{memory.at(0, 64), i}),
                             {event}));
  const Ticket copy =
      submit(device, QueueKind::d2h, {Copy{memory.at(256, 64), memory.at(64, 64)}}, {tickets[150]});
  EXPECT_LE(driver.calls(GpuCall::launch), 50 / 6) << "of the gated ones";
  EXPECT_EQ(driver.calls(GpuCall::copy), 0) << "waits for what is not given yet";
  gate = 1;
  const auto all = drain(device);
  ASSERT_EQ(all.size(), 201u);
  EXPECT_EQ(outcome(all, copy), Status::ok);
  EXPECT_EQ(memory.bytes[0], std::byte{199});
}

TEST(CudaDevice, AnEnginesStreamIsWaitedForAndWaits) {
  Bytes4K memory, engine;
  EmulatedGpu driver;
  CudaDevice device(driver);
  memory.add_to(device);
  const GpuStream stream = driver.make_stream(false);
  std::byte seen[100] = {};
  for (int round = 1; round <= 100; ++round) {
    // The engine computes, we copy what it computed, it goes on with the copy.
    const auto value = static_cast<std::uint8_t>(round);
    std::uint32_t status = 0;
    std::byte* spaces[] = {memory.bytes.data()};
    const Op compute = Fill{memory.at(0, 64), value};
    EXPECT_EQ(driver.launch(stream, {&compute, 1}, spaces, &status), GpuResult::ok);
    const Submitted point = device.import_stream(stream);
    ASSERT_EQ(point.status, Status::ok);
    const Ticket copied =
        submit(device, QueueKind::h2d, {Copy{memory.at(0, 64), memory.at(64, 64)}}, {point.ticket});
    ASSERT_EQ(device.make_wait(stream, copied), Status::ok);
    const GpuCopy out{seen + round - 1, memory.bytes.data() + 64, 1};
    EXPECT_EQ(driver.copy(stream, {&out, 1}), GpuResult::ok);
    EXPECT_EQ(drain(device).at(0).status, Status::ok);
  }
  const Submitted point = device.import_stream(stream);
  submit(device, QueueKind::host, {}, {point.ticket});
  EXPECT_EQ(drain(device).at(0).status, Status::ok) << "threads wait for streams too";
  for (int round = 1; round <= 100; ++round)
    EXPECT_EQ(seen[round - 1], static_cast<std::byte>(round));
}

// Streams wait for words in pinned memory, and raise them, by themselves.
TEST(CudaDevice, WordsThatTheGpuReachesNeedNoHost) {
  for (std::uint64_t seed = 1; seed <= 20; ++seed) {
    Bytes4K memory;
    EmulatedGpu driver(seed);
    auto* const begins = new (driver.make_pinned(8).data()) GpuWord(0);
    auto* const ends = new (driver.make_pinned(8).data()) GpuWord(0);
    GpuWord elsewhere(0);
    CudaDevice device(driver);
    memory.add_to(device, SpaceInfo::Kind::device);
    const int waits = driver.calls(GpuCall::wait_word);
    const Submitted event = device.import_event({begins, 3});
    ASSERT_EQ(event.status, Status::ok);
    const Ticket fill =
        submit(device, QueueKind::compute, {Fill{memory.at(0, 4096), 7}}, {event.ticket});
    EXPECT_EQ(driver.calls(GpuCall::wait_word), waits + 1);
    EXPECT_EQ(device.export_event(fill, {ends, 5}), Status::ok);
    EXPECT_EQ(device.export_event(fill, {&elsewhere, 1}), Status::ok);
    EXPECT_EQ(driver.calls(GpuCall::raise_word), 1);
    EXPECT_FALSE(device.next_completion(kMillisecond));
    EXPECT_EQ(memory.bytes[0], std::byte{0});
    EXPECT_EQ(ends->load(), 0u);
    begins->store(3);
    EXPECT_EQ(drain(device).at(0).status, Status::ok);
    for (int i = 0; i < 10'000 && ends->load() < 5; ++i)
      std::this_thread::sleep_for(std::chrono::microseconds(100));
    EXPECT_EQ(ends->load(), 5u);
    EXPECT_EQ(elsewhere.load(), 1u);
    EXPECT_EQ(memory.bytes[4095], std::byte{7});
  }
}

// What a stream will not raise any more the device does, and nothing twice: a raised word may be
// gone.
TEST(CudaDeviceFault, ALostGpuLeavesNoWordOfTheEngineWaiting) {
  Bytes4K memory;
  EmulatedGpu driver;
  auto* const never = new (driver.make_pinned(8).data()) GpuWord(0);
  auto* const ends = new (driver.make_pinned(8).data()) GpuWord(0);
  auto* const before = new (driver.make_pinned(8).data()) GpuWord(0);
  CudaDevice device(driver);
  memory.add_to(device, SpaceInfo::Kind::device);
  const Ticket first = submit(device, QueueKind::compute, {Fill{memory.at(0, 64), 1}});
  EXPECT_EQ(device.export_event(first, {before, 1}), Status::ok);
  for (int i = 0; i < 10'000 && before->load() == 0; ++i)
    std::this_thread::sleep_for(std::chrono::microseconds(100));
  // What comes behind it on the stream has ended: so has all of that.
  submit(device, QueueKind::compute, {Fill{memory.at(0, 64), 1}});
  for (const Completion& completion : drain(device)) EXPECT_EQ(completion.status, Status::ok);
  before->store(0);  // as if it were other memory now
  const Submitted event = device.import_event({never, 1});
  const Ticket fill =
      submit(device, QueueKind::compute, {Fill{memory.at(0, 64), 2}}, {event.ticket});
  EXPECT_EQ(device.export_event(fill, {ends, 1}), Status::ok);
  driver.lose();
  // Nothing that could run is with the GPU: the next call of its driver says so.
  (void)try_submit(device, QueueKind::h2d, {Copy{memory.at(0, 64), memory.at(64, 64)}});
  for (const Completion& completion : drain(device)) EXPECT_EQ(completion.status, Status::io_error);
  EXPECT_EQ(ends->load(), 1u);
  EXPECT_EQ(before->load(), 0u);
}

TEST(CudaDevice, ImportsOfStreamsAreBounded) {
  EmulatedGpu driver;
  GpuWord gate{0};
  CudaDevice device(driver);
  const GpuStream stream = driver.make_stream(false);
  EXPECT_EQ(driver.wait_word(stream, gate, 1), GpuResult::ok);
  for (int i = 0; i < kMaxEngineEvents; ++i)
    EXPECT_EQ(device.import_stream(stream).status, Status::ok);
  EXPECT_EQ(device.import_stream(stream).status, Status::busy);
  gate = 1;
  Submitted again;
  for (int i = 0; i < 1000 && again.ticket.id == 0; ++i) {
    EXPECT_FALSE(device.next_completion(kMillisecond));
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
    again = device.import_stream(stream);
  }
  EXPECT_EQ(again.status, Status::ok);
}

TEST(CudaDevice, MemoryThatAProcessorCannotReachIsRefused) {
  Bytes4K disk, gpu;
  EmulatedGpu driver;
  CudaDevice device(driver);
  disk.add_to(device, SpaceInfo::Kind::disk);
  driver.own(gpu.bytes);
  gpu.add_to(device, SpaceInfo::Kind::device);
  EXPECT_EQ(try_submit(device, QueueKind::host, {Fill{gpu.at(0, 8), 1}}).status, Status::rejected);
  EXPECT_EQ(try_submit(device, QueueKind::h2d, {Fill{gpu.at(0, 8), 1}}).status, Status::ok);
  EXPECT_EQ(drain(device).at(0).status, Status::ok);
  EXPECT_EQ(try_submit(device, QueueKind::h2d, {Fill{disk.at(0, 8), 1}}).status, Status::rejected);
  EXPECT_EQ(try_submit(device, QueueKind::disk, {Fill{disk.at(0, 8), 1}}).status, Status::ok);
  EXPECT_EQ(drain(device).at(0).status, Status::ok);
}

TEST(CudaDevice, CopiesThatWouldMakeTheCallerWaitAreKernels) {
  Bytes4K host, gpu;
  EmulatedGpu driver;
  driver.forbid_copies_within_host();
  driver.own(gpu.bytes);
  CudaDevice device(driver);
  host.add_to(device);
  gpu.add_to(device, SpaceInfo::Kind::device);
  host.bytes[0] = std::byte{7};
  submit(device, QueueKind::h2d,
         {Copy{host.at(0, 64), gpu.at(0, 64)}, Copy{host.at(0, 64), host.at(64, 64)}});
  EXPECT_EQ(drain(device).at(0).status, Status::ok);
  EXPECT_EQ(gpu.bytes[0], std::byte{7});
  EXPECT_EQ(host.bytes[64], std::byte{7});
  EXPECT_EQ(driver.calls(GpuCall::copy), 1);
  EXPECT_EQ(driver.calls(GpuCall::launch), 1);
}

TEST(CudaDevice, WhatItPinnedItLetsGo) {
  Bytes4K memory;
  EmulatedGpu driver;
  {
    CudaDevice device(driver);
    memory.add_to(device);
    EXPECT_EQ(driver.registered_ranges(), 1u);
    driver.fail(GpuCall::register_host);
    std::vector<std::byte> other(64);
    EXPECT_EQ(device.register_space({SpaceInfo::Kind::host, 64, other.data()}).status,
              Status::rejected);
  }
  EXPECT_EQ(driver.registered_ranges(), 0u);
}

// Set-up says what it lacks.
TEST(CudaDeviceFault, SetUpThatFailsIsAnError) {
  for (const GpuCall call : {GpuCall::make_stream, GpuCall::make_event, GpuCall::make_pinned})
    for (int number = 0; number < 3; ++number) {
      EmulatedGpu driver;
      driver.fail(call, GpuResult::failed, number);
      EXPECT_THROW(CudaDevice device(driver), Error) << static_cast<int>(call);
    }
}

// A call that fails and leaves the GPU well fails its group, or is done without.
TEST(CudaDeviceFault, ACallThatFailsFailsItsGroupAlone) {
  struct Expected {
    GpuCall call;
    Status first, second;
  };
  for (const auto& [call, first, second] :
       {Expected{GpuCall::copy, Status::io_error, Status::cancelled},
        Expected{GpuCall::launch, Status::ok, Status::io_error},
        Expected{GpuCall::record, Status::ok, Status::ok},
        Expected{GpuCall::wait_event, Status::ok, Status::ok}}) {
    SCOPED_TRACE(static_cast<int>(call));
    Bytes4K memory;
    EmulatedGpu driver;
    CudaDevice device(driver);
    memory.add_to(device);
    std::atomic<std::uint64_t> gate{0};
    const Ticket event = device.import_event({&gate, 1}).ticket;
    driver.fail(call);
    memory.bytes[0] = std::byte{7};
    const Ticket copied =
        submit(device, QueueKind::h2d, {Copy{memory.at(0, 64), memory.at(64, 64)}}, {event});
    const Ticket filled =
        submit(device, QueueKind::compute, {Copy{memory.at(64, 64), memory.at(128, 64)}}, {copied});
    gate = 1;
    const auto all = drain(device);
    EXPECT_EQ(outcome(all, copied), first);
    EXPECT_EQ(outcome(all, filled), second);
    if (second == Status::ok) {
      EXPECT_EQ(memory.bytes[128], std::byte{7}) << "the order was kept";
    }
    submit(device, QueueKind::compute, {Fill{memory.at(128, 64), 1}});
    submit(device, QueueKind::h2d, {Copy{memory.at(0, 64), memory.at(64, 64)}});
    for (const Completion& completion : drain(device)) EXPECT_EQ(completion.status, Status::ok);
    EXPECT_EQ(device.why_lost(), "");
  }
}

// Without a call that order or outcomes need, and where a call finds the GPU lost, all that is
// outstanding fails, later submits too, and nobody waits.
TEST(CudaDeviceFault, ALostGpuFailsAllAndLetsGo) {
  struct Fault {
    GpuCall call;
    GpuResult result;
  };
  for (const auto& [call, result] :
       {Fault{GpuCall::write_word, GpuResult::failed}, Fault{GpuCall::wait_word, GpuResult::failed},
        Fault{GpuCall::write_word, GpuResult::lost}, Fault{GpuCall::wait_word, GpuResult::lost},
        Fault{GpuCall::wait_event, GpuResult::lost}, Fault{GpuCall::record, GpuResult::lost},
        Fault{GpuCall::copy, GpuResult::lost}, Fault{GpuCall::launch, GpuResult::lost},
        Fault{GpuCall::check, GpuResult::lost}}) {
    SCOPED_TRACE(static_cast<int>(call));
    SCOPED_TRACE(static_cast<int>(result));
    std::atomic<std::uint64_t> never{0}, exported{0};
    Bytes4K memory;
    EmulatedGpu driver;
    CudaDevice device(driver, standard_queues(1), {.drain_ns = 100 * kMillisecond});
    memory.add_to(device);
    driver.fail(call, result, call == GpuCall::check ? 3 : 0);
    const Ticket event = device.import_event({&never, 1}).ticket;
    std::vector<Submitted> all;
    const auto submits = [&](QueueKind kind, std::vector<Op> ops, std::vector<Ticket> after) {
      for (Ticket& ticket : after)
        if (ticket.id == 0) after.clear();
      all.push_back(try_submit(device, kind, std::move(ops), after));
      return all.back().ticket;
    };
    const Ticket copied =
        submits(QueueKind::h2d, {Copy{memory.at(0, 64), memory.at(64, 64)}}, {event});
    const Ticket filled = submits(QueueKind::compute, {Fill{memory.at(64, 64), 1}}, {copied});
    const Ticket gated = submits(QueueKind::compute, {Fill{memory.at(64, 64), 1}}, {event});
    const Ticket on_host = submits(QueueKind::host, {Fill{memory.at(64, 64), 1}}, {gated});
    if (gated.id != 0) {
      EXPECT_EQ(device.export_event(gated, {&exported, 1}), Status::ok);
    }
    if (call == GpuCall::check) {
      // Found while a group runs that does not end.
      driver.hang();
      submits(QueueKind::d2h, {Fill{memory.at(512, 64), 1}}, {});
    }
    std::size_t taken = 0;
    for (const Submitted& submitted : all) taken += submitted.status == Status::ok;
    const auto completions = drain(device);
    EXPECT_EQ(completions.size(), taken);
    if (gated.id != 0) {
      EXPECT_EQ(outcome(completions, gated), Status::io_error);
      EXPECT_EQ(exported, 1u);
    }
    if (on_host.id != 0) {
      EXPECT_EQ(outcome(completions, on_host), Status::cancelled);
    }
    (void)filled;
    EXPECT_NE(device.why_lost(), "");
    for (const QueueKind kind : {QueueKind::h2d, QueueKind::compute, QueueKind::host})
      EXPECT_EQ(try_submit(device, kind, {}).status, Status::io_error);
    EXPECT_EQ(device.import_stream(nullptr).status, Status::io_error);
    EXPECT_FALSE(device.next_completion(kSecond));
  }
}

TEST(CudaDeviceFault, AStuckGpuIsLostWithinItsBound) {
  std::atomic<std::uint64_t> never{0};
  Bytes4K memory;
  EmulatedGpu driver;
  const auto began = std::chrono::steady_clock::now();
  {
    CudaDevice device(driver, standard_queues(1),
                      {.stuck_ns = 50 * kMillisecond, .drain_ns = 50 * kMillisecond});
    memory.add_to(device);
    // Nobody is stuck that waits for the engine.
    const Ticket event = device.import_event({&never, 1}).ticket;
    submit(device, QueueKind::compute, {}, {event});
    EXPECT_FALSE(device.next_completion(200 * kMillisecond));
    EXPECT_EQ(device.why_lost(), "");
    driver.hang();
    submit(device, QueueKind::h2d, {Fill{memory.at(0, 64), 1}});
    EXPECT_EQ(drain(device).size(), 2u);
    EXPECT_NE(device.why_lost().find("h2d"), std::string::npos) << device.why_lost();
  }
  EXPECT_TRUE(driver.abandoned());
  EXPECT_LT(std::chrono::steady_clock::now() - began, std::chrono::seconds(30));
}

TEST(CudaDeviceLifetime, WhatIsLeftRunsOutWithoutKernels) {
  std::atomic<std::uint64_t> never{0}, exported{0};
  Bytes4K memory;
  EmulatedGpu driver;
  {
    CudaDevice device(driver);
    memory.add_to(device);
    const Ticket event = device.import_event({&never, 1}).ticket;
    submit(device, QueueKind::compute, {Fill{memory.at(0, 64), 1}}, {event});
    const Ticket host = submit(device, QueueKind::host, {Fill{memory.at(64, 64), 1}}, {event});
    const Ticket last = submit(device, QueueKind::compute, {Fill{memory.at(128, 64), 1}}, {host});
    EXPECT_EQ(device.export_event(last, {&exported, 1}), Status::ok);
  }
  EXPECT_FALSE(driver.abandoned());
  EXPECT_EQ(exported, 1u);
  EXPECT_EQ(memory.bytes, std::vector<std::byte>(4096));
}

TEST(CudaDeviceLifetime, ADeviceOfAHungGpuGoesWithinItsBound) {
  Bytes4K memory;
  EmulatedGpu driver;
  const auto began = std::chrono::steady_clock::now();
  {
    CudaDevice device(driver, standard_queues(1), {.drain_ns = 50 * kMillisecond});
    memory.add_to(device);
    driver.hang();
    submit(device, QueueKind::compute, {Fill{memory.at(0, 64), 1}});
  }
  EXPECT_TRUE(driver.abandoned());
  EXPECT_LT(std::chrono::steady_clock::now() - began, std::chrono::seconds(30));
}

// The seam's graphs: what is captured is run by replay alone, in its stream's order.
TEST(EmulatedGpu, RunsACapturedGraphAsOftenAsItIsReplayed) {
  EmulatedGpu driver;
  const GpuStream stream = driver.make_stream(false);
  std::vector<std::byte> bytes(64);
  std::byte* spaces[] = {bytes.data()};
  std::uint32_t status = 0;
  GpuWord word{0};
  const Op sum = Checksum{{{}, 0, 8}, {{}, 0, 8}};  // of itself: changes with each run
  ASSERT_EQ(driver.begin_capture(stream), GpuResult::ok);
  EXPECT_EQ(driver.launch(stream, {&sum, 1}, spaces, &status), GpuResult::ok);
  GpuGraph graph = nullptr;
  ASSERT_EQ(driver.end_capture(stream, graph), GpuResult::ok);
  const auto wait = [&](std::uint64_t value) {
    EXPECT_EQ(driver.write_word(stream, word, value), GpuResult::ok);
    while (word < value) std::this_thread::yield();
  };
  wait(1);
  EXPECT_EQ(bytes, std::vector<std::byte>(64));
  EXPECT_EQ(driver.replay(graph, stream), GpuResult::ok);
  wait(2);
  const auto once = bytes;
  EXPECT_NE(once, std::vector<std::byte>(64));
  EXPECT_EQ(driver.replay(graph, stream), GpuResult::ok);
  wait(3);
  EXPECT_NE(bytes, once);
}

}  // namespace
}  // namespace modalkv
