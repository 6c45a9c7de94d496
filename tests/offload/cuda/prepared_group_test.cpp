// Groups of CudaDevice that are captured once and run many times: a decode step of the GPU's own
// kernels, and that such a group is ordered, ends and fails as any other.
#include <gtest/gtest.h>

#include <algorithm>
#include <random>

#include "tests/kernels/cuda/gpu_memory.hpp"
#include "tests/kernels/made_attention.hpp"
#include "tests/offload/cuda/emulated_kernels.hpp"
#include "tests/offload/submit.hpp"

namespace modalkv {
namespace {

Ticket submit(CudaDevice& device, PreparedGroup group, const std::vector<Ticket>& after = {}) {
  return taken(device.submit(group, after));
}

Prepared try_prepare(CudaDevice& device, QueueKind kind, const std::vector<Op>& ops) {
  return device.prepare(queue_of(device, kind), ops);
}

PreparedGroup prepare(CudaDevice& device, QueueKind kind, const std::vector<Op>& ops) {
  const Prepared prepared = try_prepare(device, kind, ops);
  EXPECT_EQ(prepared.status, Status::ok);
  return prepared.group;
}

void expect_all_ok(Device& device) {
  for (const Completion& completion : drain(device)) EXPECT_EQ(completion.status, Status::ok);
}

// A word of the engine that holds groups back; threads wait for it, and streams through the device.
struct Gate {
  std::atomic<std::uint64_t> word{0};
  Ticket of(Device& device) { return taken(device.import_event({&word, ++closed})); }
  void open() { word = closed; }
  std::uint64_t closed = 0;
};

constexpr int kQueryHeads = 4, kKvHeads = 2, kHeadDim = 64;

// A list of as many pages as there may ever be, which any pages of a pool may become.
struct CapacityList {
  static constexpr std::int64_t kPages = 3, kPool = 6;

  CapacityList(GpuMemory& memory, Tokens page_tokens, const KvFormat& format, std::uint64_t seed)
      : pool(make_list({page_tokens, kKvHeads, kHeadDim, format}, kPool * page_tokens, seed)) {
    attend.shape = pool.shape;
    attend.tokens = kPages * page_tokens;
    attend.pages = memory.room(kPool * page_bytes(pool.shape));
    for (std::int64_t p = 0; p < kPool; ++p)
      std::memcpy(memory.at(attend.pages) + p * page_bytes(pool.shape),
                  pool.addresses[static_cast<std::size_t>(p)], pool.pages.front().size());
    attend.page_table = memory.put(std::vector<std::int64_t>(kPages));
    attend.hidden = memory.room(divide_up(attend.tokens, Tokens{64}) * 8);
  }

  // The first `tokens` are there, some of them hidden, in pages that nobody expected. What is there
  // as a list of no more than that.
  PageList become(GpuMemory& memory, Tokens tokens, std::mt19937_64& random) {
    std::vector<std::int64_t> order(kPool);
    std::iota(order.begin(), order.end(), std::int64_t{0});
    std::shuffle(order.begin(), order.end(), random);
    std::vector<std::int64_t> table(kPages, order.back() * page_bytes(pool.shape));
    addresses.clear();
    for (std::size_t p = 0; p < static_cast<std::size_t>(divide_up(tokens, pool.shape.tokens));
         ++p) {
      table[p] = order[p] * page_bytes(pool.shape);
      addresses.push_back(pool.addresses[static_cast<std::size_t>(order[p])]);
    }
    hidden.assign(static_cast<std::size_t>(divide_up(attend.tokens, Tokens{64})),
                  ~std::uint64_t{0});
    for (Tokens token = 0; token < tokens; ++token)
      if (random() % 8 != 0) hidden[static_cast<std::size_t>(token / 64)] &= ~(1ull << token % 64);
    std::memcpy(memory.at(attend.page_table), table.data(), table.size() * 8);
    std::memcpy(memory.at(attend.hidden), hidden.data(), hidden.size() * 8);
    return {.shape = pool.shape, .pages = addresses, .tokens = tokens, .hidden = hidden};
  }

  MadeList pool;
  Attend attend{};
  std::vector<const std::byte*> addresses;
  std::vector<std::uint64_t> hidden;
};

// Text in 16 bits and an image in 4, of which each step sees more: one graph for all steps, against
// attention in double precision over what is there, and against the same operations submitted.
TEST(PreparedGroup, ADecodeStepIsCapturedOnceForAllTokens) {
  constexpr std::uint64_t kSeed = 20;
  constexpr int kSteps = 24;
  SCOPED_TRACE("seed " + std::to_string(kSeed));
  std::mt19937_64 random(kSeed);
  constexpr Bytes kMemory = kMiB, kPart = partial_bytes(kQueryHeads, kHeadDim);
  GpuMemory memory(kMemory);
  CudaKernels cuda;
  CudaDevice& device = cuda.device;
  ASSERT_EQ(device.register_space({SpaceInfo::Kind::device, kMemory, memory.spaces()[0]}).space,
            SpaceId{});
  const Address queries = memory.room(kQueryHeads * kHeadDim * 2);
  const Address partials = memory.room(2 * kPart), merged = memory.room(kPart);
  const Address outputs = memory.room(kQueryHeads * kHeadDim * 2);
  const Address log_sum_exp = memory.room(kQueryHeads * 4);
  CapacityList text(memory, 16, both(fp16()), 1), image(memory, 48, both(int4_token_head()), 100);
  std::vector<Op> step;
  for (CapacityList* list : {&text, &image}) {
    Attend& attend = list->attend;
    attend.queries = queries;
    attend.query_heads = kQueryHeads;
    attend.query_tokens = 1;
    attend.logit_scale = 1 / std::sqrt(static_cast<float>(kHeadDim));
    attend.partials = {{}, partials.offset + static_cast<Bytes>(step.size()) * kPart, kPart};
    step.push_back(attend);
  }
  step.push_back(Merge{partials, merged, 2, kQueryHeads, kHeadDim});
  step.push_back(Finish{merged, outputs, log_sum_exp, kQueryHeads, kHeadDim});
  const PreparedGroup prepared = prepare(device, QueueKind::compute, step);

  const auto results = [&] {
    return std::tuple(memory.read<float>(merged), memory.read<std::uint16_t>(outputs),
                      memory.read<float>(log_sum_exp));
  };
  for (int i = 1; i <= kSteps; ++i) {
    SCOPED_TRACE("step " + std::to_string(i));
    const MadeQueries made =
        make_queries(1, kQueryHeads, kHeadDim, 1, random(), NumberFormat::fp16);
    std::memcpy(memory.at(queries), made.elements.data(), static_cast<std::size_t>(queries.bytes));
    const PageList lists[] = {text.become(memory, text.attend.tokens * i / kSteps, random),
                              image.become(memory, image.attend.tokens * i / kSteps, random)};
    const int launches = cuda.gpu.calls(GpuCall::launch);
    const Ticket run = submit(device, prepared);
    EXPECT_EQ(outcome(drain(device), run), Status::ok);
    EXPECT_EQ(cuda.gpu.calls(GpuCall::launch), launches);
    EXPECT_EQ(cuda.gpu.calls(GpuCall::replay), i);
    const auto found = results();
    expect_close(made.queries(), lists, kHeadDim, std::get<0>(found));
    for (const Address& at : {partials, merged, outputs, log_sum_exp})
      std::memset(memory.at(at), 0x7f, static_cast<std::size_t>(at.bytes));
    submit(device, QueueKind::compute, step);
    expect_all_ok(device);
    EXPECT_EQ(results(), found);
  }
  memory.expect_whole_red_zones();
}

// Of copies by engines, two of which depend, and of kernels, between queues of threads.
TEST(PreparedGroup, WaitsAndIsWaitedForAsAnyOther) {
  for (std::uint64_t seed = 1; seed <= 10; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    Cuda cuda(seed);
    CudaDevice& device = cuda.device;
    Memory memory(device, 4096);
    Gate gate;
    const PreparedGroup up = prepare(
        device, QueueKind::h2d,
        {Copy{memory.at(0, 64), memory.at(64, 64)}, Copy{memory.at(64, 64), memory.at(128, 64)}});
    const PreparedGroup sum =
        prepare(device, QueueKind::compute,
                {Fill{memory.at(256, 64), 9}, Copy{memory.at(128, 32), memory.at(256, 32)}});
    EXPECT_EQ(memory[256], 0) << "captured, not run";
    for (std::uint8_t round = 1; round <= 10; ++round) {
      const Ticket begin =
          submit(device, QueueKind::host, {Fill{memory.at(0, 64), round}}, {gate.of(device)});
      const Ticket copied = submit(device, up, {begin});
      const Ticket done = submit(device, sum, {copied});
      const Ticket down =
          submit(device, QueueKind::d2h, {Copy{memory.at(256, 64), memory.at(512, 64)}}, {done});
      submit(device, QueueKind::host, {Copy{memory.at(512, 64), memory.at(1024, 64)}}, {down});
      EXPECT_FALSE(device.next_completion(kMillisecond));
      EXPECT_EQ(memory[1024], round - 1) << "it did not wait";
      gate.open();
      expect_all_ok(device);
      EXPECT_EQ(memory[1024], round);
      EXPECT_EQ(memory[1024 + 32], 9);
    }
    EXPECT_EQ(cuda.gpu.calls(GpuCall::replay), 20);
  }
}

// The stream still holds what was there before, and goes on.
TEST(PreparedGroup, IsCapturedWhileItsStreamWaits) {
  Cuda cuda;
  CudaDevice& device = cuda.device;
  Memory memory(device, 4096);
  Gate gate;
  submit(device, QueueKind::compute, {Fill{memory.at(0, 64), 1}}, {gate.of(device)});
  const PreparedGroup copy =
      prepare(device, QueueKind::compute, {Copy{memory.at(0, 64), memory.at(64, 64)}});
  submit(device, copy);
  EXPECT_FALSE(device.next_completion(kMillisecond));
  EXPECT_EQ(memory[0], 0);
  gate.open();
  expect_all_ok(device);
  EXPECT_EQ(memory[64], 1);
}

TEST(PreparedGroup, AFailureInsideIsItsOutcomeOfThatRun) {
  Cuda cuda;
  CudaDevice& device = cuda.device;
  Memory memory(device, 4096);
  submit(device, QueueKind::host, {Checksum{memory.at(0, 64), memory.at(64, 8)}});
  expect_all_ok(device);
  const PreparedGroup checked = prepare(
      device, QueueKind::compute,
      {Verify{memory.at(0, 64), memory.at(64, 8)}, Copy{memory.at(128, 8), memory.at(192, 8)}});
  const PreparedGroup beside = prepare(device, QueueKind::compute, {Fill{memory.at(256, 8), 1}});
  for (std::uint8_t round = 1; round <= 6; ++round) {
    SCOPED_TRACE(static_cast<int>(round));
    const bool broken = round % 2 == 1;
    memory.bytes()[3] = std::byte{broken};
    memory.bytes()[128] = std::byte{round};
    const Ticket run = submit(device, checked);
    const Ticket other = submit(device, beside);
    const Ticket next = submit(device, QueueKind::host, {}, {run});
    const auto all = drain(device);
    EXPECT_EQ(outcome(all, other), Status::ok);
    EXPECT_EQ(outcome(all, run), broken ? Status::checksum : Status::ok);
    EXPECT_EQ(outcome(all, next), broken ? Status::cancelled : Status::ok);
    EXPECT_EQ(memory[192], broken ? round - 1 : round);
  }
}

// Known before it is given to its stream, and after.
TEST(PreparedGroup, DoesNothingAfterAFailureOfWhatItWaitsFor) {
  Cuda cuda;
  CudaDevice& device = cuda.device;
  Memory memory(device, 4096);
  const PreparedGroup fill = prepare(device, QueueKind::compute, {Fill{memory.at(128, 64), 1}});
  const Op fails = Verify{memory.at(0, 16), memory.at(32, 8)};
  memory.bytes()[0] = std::byte{1};
  for (const bool known : {true, false}) {
    SCOPED_TRACE(known);
    Gate gate;
    const Ticket bad = submit(device, QueueKind::host, {fails}, {gate.of(device)});
    if (known) {
      gate.open();
      EXPECT_EQ(outcome(drain(device), bad), Status::checksum);
    }
    const Ticket run = submit(device, fill, {bad});
    gate.open();
    EXPECT_EQ(outcome(drain(device), run), Status::cancelled);
    EXPECT_EQ(memory[128], 0);
  }
  const Ticket again = submit(device, fill);
  EXPECT_EQ(outcome(drain(device), again), Status::ok);
  EXPECT_EQ(memory[128], 1);
}

TEST(PreparedGroup, IsBusyWhileItIsUnderWay) {
  Cuda cuda;
  CudaDevice& device = cuda.device;
  Memory memory(device, 4096);
  // Changes with each run.
  const std::vector<Op> step = {Checksum{memory.at(0, 8), memory.at(64, 8)},
                                Copy{memory.at(64, 8), memory.at(0, 8)}};
  const PreparedGroup one = prepare(device, QueueKind::compute, step);
  const PreparedGroup two = prepare(device, QueueKind::compute, step);
  Gate gate;
  submit(device, one, {gate.of(device)});
  EXPECT_EQ(device.submit(one, {}).status, Status::busy);
  submit(device, two);
  EXPECT_EQ(device.submit(two, {}).status, Status::busy);
  submit(device, QueueKind::compute, step);
  gate.open();
  EXPECT_EQ(drain(device).size(), 3u);
  std::vector<std::byte> expected(4096);
  std::byte* space = expected.data();
  for (int i = 0; i < 3; ++i)
    for (const Op& op : step) EXPECT_EQ(perform(op, {&space, 1}), Status::ok);
  EXPECT_EQ(memory.bytes(), expected);
  submit(device, one);
  expect_all_ok(device);
}

// Groups follow each other in the device's slots.
TEST(PreparedGroup, NoOtherIsTakenForIt) {
  EmulatedGpu driver;
  std::vector<QueueInfo> queues = standard_queues(1);
  for (QueueInfo& info : queues) info.max_groups = 2;
  CudaDevice device(driver, queues);
  Memory memory(device, 4096);
  const PreparedGroup copy =
      prepare(device, QueueKind::compute, {Copy{memory.at(0, 64), memory.at(64, 64)}});
  for (std::uint8_t i = 1; i <= 12; ++i) {
    if (i % 3 == 0) {
      submit(device, copy);
    } else {
      submit(device, QueueKind::compute, {Fill{memory.at(0, 64), i}});
    }
    expect_all_ok(device);
    EXPECT_EQ(memory[0], i - (i % 3 == 0));
    EXPECT_EQ(memory[64], i < 3 ? 0 : i / 3 * 3 - 1);
  }
}

// Its commands count on the stream as they do in any other group.
TEST(PreparedGroup, AFullStreamMakesNobodyWait) {
  EmulatedGpu driver;
  CudaDevice device(driver, standard_queues(1), {.max_commands = 50});
  Memory memory(device, 4096);
  std::vector<PreparedGroup> groups;
  for (std::uint8_t i = 0; i < 20; ++i)
    groups.push_back(prepare(device, QueueKind::compute,
                             std::vector<Op>(i == 10 ? 100 : 7, Fill{memory.at(0, 64), i})));
  Gate gate;
  const Ticket event = gate.of(device);
  for (const PreparedGroup group : groups) submit(device, group, {event});
  EXPECT_EQ(driver.calls(GpuCall::replay), 5);
  gate.open();
  expect_all_ok(device);
  EXPECT_EQ(driver.calls(GpuCall::replay), 20);
  EXPECT_EQ(memory[0], 19);
}

// A capture that fails anywhere leaves the stream and the device as they were.
TEST(PreparedGroupFault, ACaptureThatFailsLeavesItsStreamUsable) {
  for (const auto& [call, number] : {std::pair{GpuCall::capture, 0},
                                     {GpuCall::copy, 0},
                                     {GpuCall::copy, 1},
                                     {GpuCall::launch, 0},
                                     {GpuCall::capture, 1}}) {
    SCOPED_TRACE(static_cast<int>(call));
    SCOPED_TRACE(number);
    Cuda cuda;
    CudaDevice& device = cuda.device;
    Memory memory(device, 4096);
    memory.bytes()[0] = std::byte{1};
    const std::vector<Op> ops = {Copy{memory.at(0, 64), memory.at(64, 64)},
                                 Copy{memory.at(64, 64), memory.at(128, 64)},
                                 Fill{memory.at(192, 64), 2}};
    cuda.gpu.fail(call, GpuResult::failed, number);
    EXPECT_EQ(try_prepare(device, QueueKind::h2d, ops).status, Status::io_error);
    EXPECT_EQ(device.why_lost(), "");
    EXPECT_EQ(device.submit(PreparedGroup{}, {}).status, Status::rejected);
    submit(device, QueueKind::h2d, ops);
    expect_all_ok(device);
    EXPECT_EQ(memory[128], 1);
    EXPECT_EQ(memory[192], 2);
    memory.bytes()[0] = std::byte{3};
    submit(device, prepare(device, QueueKind::h2d, ops));
    expect_all_ok(device);
    EXPECT_EQ(memory[128], 3);
  }
}

TEST(PreparedGroupFault, AReplayThatFailsFailsItsGroupAlone) {
  Cuda cuda;
  CudaDevice& device = cuda.device;
  Memory memory(device, 4096);
  const PreparedGroup fill = prepare(device, QueueKind::compute, {Fill{memory.at(0, 64), 1}});
  cuda.gpu.fail(GpuCall::replay);
  const Ticket run = submit(device, fill);
  const Ticket next = submit(device, QueueKind::host, {}, {run});
  const Ticket other = submit(device, QueueKind::compute, {});
  const auto all = drain(device);
  EXPECT_EQ(outcome(all, run), Status::io_error);
  EXPECT_EQ(outcome(all, next), Status::cancelled);
  EXPECT_EQ(outcome(all, other), Status::ok);
  EXPECT_EQ(memory[0], 0);
  EXPECT_EQ(device.why_lost(), "");
  submit(device, fill);
  expect_all_ok(device);
  EXPECT_EQ(memory[0], 1);
}

TEST(PreparedGroupFault, ALostGpuFailsAll) {
  for (const auto& [call, number] : {std::pair{GpuCall::capture, 2},
                                     {GpuCall::launch, 1},
                                     {GpuCall::capture, 3},
                                     {GpuCall::replay, 0}}) {
    SCOPED_TRACE(static_cast<int>(call));
    SCOPED_TRACE(number);
    Gate never;
    Cuda cuda;
    CudaDevice& device = cuda.device;
    Memory memory(device, 4096);
    cuda.gpu.fail(call, GpuResult::lost, number);
    const std::vector<Op> ops = {Fill{memory.at(0, 64), 1}};
    const PreparedGroup fill = prepare(device, QueueKind::compute, ops);
    const Ticket waits = submit(device, QueueKind::h2d, {}, {never.of(device)});
    std::size_t outstanding = 1;
    if (call == GpuCall::replay) {
      outstanding += device.submit(fill, {}).status == Status::ok;
    } else {
      EXPECT_EQ(try_prepare(device, QueueKind::compute, ops).status, Status::io_error);
    }
    const auto all = drain(device);
    EXPECT_EQ(all.size(), outstanding);
    for (const Completion& completion : all) EXPECT_EQ(completion.status, Status::io_error);
    EXPECT_EQ(outcome(all, waits), Status::io_error);
    EXPECT_NE(device.why_lost(), "");
    EXPECT_EQ(device.submit(fill, {}).status, Status::io_error);
    EXPECT_EQ(try_prepare(device, QueueKind::compute, ops).status, Status::io_error);
  }
}

TEST(PreparedGroupLifetime, WhatIsLeftRunsOutWithoutKernels) {
  GpuWord never{0};
  std::vector<std::byte> bytes(64);
  EmulatedGpu driver;
  {
    CudaDevice device(driver);
    const auto space = device.register_space({SpaceInfo::Kind::host, 64, bytes.data()}).space;
    const PreparedGroup fill = prepare(device, QueueKind::compute, {Fill{{space, 0, 64}, 1}});
    const Ticket event = taken(device.import_event({&never, 1}));
    submit(device, fill, {event});
  }
  EXPECT_FALSE(driver.abandoned());
  EXPECT_EQ(bytes, std::vector<std::byte>(64));
}

TEST(PreparedGroup, RefusesWhatSubmitRefuses) {
  std::vector<std::byte> disk(64);
  EmulatedGpu driver;
  std::vector<QueueInfo> queues = standard_queues(1);
  for (QueueInfo& info : queues) info.max_groups = info.max_ops = 8;
  CudaDevice device(driver, queues);
  Memory memory(device, 4096);
  const SpaceId unreachable = device.register_space({SpaceInfo::Kind::disk, 64, disk.data()}).space;
  const Op fill = Fill{memory.at(0, 64), 1};
  const auto refused = [&](const std::vector<Op>& ops, QueueKind kind = QueueKind::compute) {
    return try_prepare(device, kind, ops).status;
  };
  EXPECT_EQ(refused({fill, Fill{{unreachable, 0, 8}, 1}}), Status::rejected);
  EXPECT_EQ(refused({fill, Fill{{{17}, 0, 8}, 1}}), Status::rejected) << "an unknown space";
  EXPECT_EQ(refused({fill, Fill{memory.at(4090, 64), 1}}), Status::rejected) << "out of bounds";
  EXPECT_EQ(refused({fill}, QueueKind::host), Status::rejected);
  EXPECT_EQ(refused({fill}, QueueKind::disk), Status::rejected);
  EXPECT_EQ(refused(std::vector<Op>(9, fill)), Status::rejected) << "more than its queue holds";
  EXPECT_EQ(device.prepare(QueueId{12}, {&fill, 1}).status, Status::rejected);
  EXPECT_EQ(refused({fill, EngineWork{1}}), Status::unsupported);
  EXPECT_EQ(driver.calls(GpuCall::capture), 0);

  EXPECT_EQ(device.submit(PreparedGroup{0}, {}).status, Status::rejected);
  std::vector<PreparedGroup> groups;
  for (std::size_t i = 0; i < kMaxPreparedGroups; ++i)
    groups.push_back(prepare(device, QueueKind::compute, {fill}));
  EXPECT_EQ(refused({fill}), Status::busy);
  EXPECT_EQ(device.submit(PreparedGroup{kMaxPreparedGroups}, {}).status, Status::rejected);
  const Ticket unknown{(std::uint64_t{1000} << 8) | queue_of(device, QueueKind::h2d).index};
  EXPECT_EQ(device.submit(groups[0], {&unknown, 1}).status, Status::rejected);
  for (std::size_t i = 0; i < 8; ++i) submit(device, groups[i]);
  EXPECT_EQ(device.submit(groups[8], {}).status, Status::busy) << "its queue is full";
  EXPECT_EQ(drain(device).size(), 8u);
  for (std::size_t i = 8; i < 12; ++i) submit(device, groups[i]);
  expect_all_ok(device);
}

}  // namespace
}  // namespace modalkv
