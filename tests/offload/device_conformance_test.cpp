// What every device promises (offload/device.hpp).
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <memory>
#include <numeric>
#include <random>
#include <string>
#include <thread>
#include <utility>

#include "kernels/checksum.hpp"
#include "kernels/number.hpp"
#include "kernels/page_codec.hpp"
#include "tests/offload/cuda/emulated_kernels.hpp"
#include "tests/offload/devices.hpp"

namespace modalkv {
namespace {

/// A device and what it stands on.
class Target {
 public:
  virtual ~Target() = default;
  virtual Device& device() = 0;
};

template <typename T>
struct TargetOf : Target {
  Device& device() override { return target.device; }
  T target;
};

struct Candidate {
  std::string name;
  bool virtual_time, runs_ahead;
  std::unique_ptr<Target> (*make)();

  friend void PrintTo(const Candidate& candidate, std::ostream* out) { *out << candidate.name; }
};

template <typename T>
Candidate candidate(std::string name) {
  return {std::move(name), T::kVirtualTime, T::kRunsAhead,
          []() -> std::unique_ptr<Target> { return std::make_unique<TargetOf<T>>(); }};
}

class DeviceConformance : public testing::TestWithParam<Candidate> {
 protected:
  const std::unique_ptr<Target> target = GetParam().make();
  Device& device = target->device();

  QueueId queue(QueueKind kind) { return find_queue(device, kind).value(); }
  Submitted submit(QueueKind kind, std::vector<Op> ops, std::vector<Ticket> after = {}) {
    return device.submit(queue(kind), ops, after);
  }
  Ticket submit_ok(QueueKind kind, std::vector<Op> ops, std::vector<Ticket> after = {}) {
    const Submitted submitted = submit(kind, std::move(ops), std::move(after));
    EXPECT_EQ(submitted.status, Status::ok);
    return submitted.ticket;
  }
};

INSTANTIATE_TEST_SUITE_P(
    Devices, DeviceConformance,
    testing::Values(
        candidate<Sim>("Sim"), candidate<JitteredSim>("JitteredSim"), candidate<Host>("Host"),
        candidate<Cuda>("Cuda"), candidate<CudaKernels>("CudaKernels"),
        candidate<Checked<Sim>>("CheckedSim"), candidate<Checked<Host>>("CheckedHost"),
        candidate<Checked<Cuda>>("CheckedCuda"), candidate<Faultless<Sim>>("FaultlessSim"),
        candidate<Faultless<Host>>("FaultlessHost"), candidate<Faultless<Cuda>>("FaultlessCuda"),
        candidate<Checked<Faultless<Host>>>("CheckedFaultlessHost"),
        candidate<Traced<Sim>>("TracedSim"), candidate<Traced<Host>>("TracedHost"),
        candidate<Traced<Cuda>>("TracedCuda")),
    [](const auto& device) { return device.param.name; });

TEST_P(DeviceConformance, HasEveryKindOfQueue) {
  for (const auto kind :
       {QueueKind::h2d, QueueKind::d2h, QueueKind::compute, QueueKind::host, QueueKind::disk})
    EXPECT_TRUE(find_queue(device, kind)) << name(kind);
  EXPECT_TRUE(find_queue(device, QueueKind::host, 1)) << "one for each of two NUMA nodes";
  EXPECT_FALSE(find_queue(device, QueueKind::host, 2));
}

TEST_P(DeviceConformance, CopiesFillsAndChecksumsBytes) {
  Memory host(device, 4096), gpu(device, 4096, SpaceInfo::Kind::device);
  for (std::size_t i = 0; i < 256; ++i) host.bytes()[i] = static_cast<std::byte>(i * 7 + 3);
  const Ticket up = submit_ok(QueueKind::h2d, {Copy{host.at(0, 256), gpu.at(512, 256)}});
  const Ticket sum =
      submit_ok(QueueKind::compute,
                {Checksum{gpu.at(512, 256), gpu.at(1024, 8)}, Fill{gpu.at(0, 100), 0x11},
                 Verify{gpu.at(512, 256), gpu.at(1024, 8)}},
                {up});
  submit_ok(QueueKind::d2h, {Copy{gpu.at(512, 520), host.at(1000, 520)}}, {sum});
  for (const Completion& completion : drain(device)) EXPECT_EQ(completion.status, Status::ok);
  EXPECT_TRUE(
      std::equal(host.bytes().begin(), host.bytes().begin() + 256, host.bytes().begin() + 1000));
  EXPECT_EQ(gpu[99], 0x11);
  EXPECT_NE(gpu[100], 0x11);
  std::uint64_t stored = 0;
  std::memcpy(&stored, host.bytes().data() + 1512, 8);
  EXPECT_EQ(stored, checksum({host.bytes().data(), 256}));
}

TEST_P(DeviceConformance, AQueueKeepsItsOrder) {
  Memory memory(device, 64);
  std::vector<Ticket> submitted;
  for (std::uint8_t i = 0; i < 100; ++i)
    submitted.push_back(submit_ok(QueueKind::compute, {Fill{memory.at(0, 64), i}}));
  const auto all = drain(device);
  ASSERT_EQ(all.size(), submitted.size());
  for (std::size_t i = 0; i < all.size(); ++i) EXPECT_EQ(all[i].ticket, submitted[i]);
  EXPECT_EQ(memory[0], 99);
}

TEST_P(DeviceConformance, TicketsOrderQueuesAcrossADiamond) {
  Memory memory(device, 4096);
  const auto a = memory.at(0, 64), b = memory.at(64, 64), c = memory.at(128, 64),
             d = memory.at(192, 128);
  for (int round = 0; round < 50; ++round) {
    const auto value = static_cast<std::uint8_t>(round);
    const Ticket top = submit_ok(QueueKind::compute, {Fill{a, value}});
    const Ticket left = submit_ok(QueueKind::h2d, {Copy{a, b}}, {top});
    const Ticket right = submit_ok(QueueKind::d2h, {Copy{a, c}}, {top});
    submit_ok(QueueKind::host, {Copy{memory.at(64, 128), d}}, {left, right});
    drain(device);
    EXPECT_EQ(memory[192], value);
    EXPECT_EQ(memory[319], value);
  }
}

TEST_P(DeviceConformance, AGroupWithoutOperationsIsAPointToWaitFor) {
  Memory memory(device, 64);
  const Ticket one = submit_ok(QueueKind::h2d, {Fill{memory.at(0, 32), 1}});
  const Ticket two = submit_ok(QueueKind::d2h, {Fill{memory.at(32, 32), 1}});
  const Ticket both = submit_ok(QueueKind::host, {}, {one, two});
  EXPECT_EQ(drain(device).back().ticket, both);
}

TEST_P(DeviceConformance, TheDefaultTicketIsDone) {
  submit_ok(QueueKind::compute, {}, {Ticket{}});
  EXPECT_EQ(drain(device).size(), 1u);
}

TEST_P(DeviceConformance, ManyFailuresDoNotHideTheLatest) {
  Memory memory(device, 64);
  Ticket failed;
  for (int i = 0; i < 1100; ++i) {
    failed = submit_ok(QueueKind::host, {Verify{memory.at(16, 16), memory.at(32, 8)}});
    EXPECT_EQ(drain(device).at(0).status, Status::checksum);
  }
  const Ticket late = submit_ok(QueueKind::compute, {Fill{memory.at(0, 8), 1}}, {failed});
  EXPECT_EQ(outcome(drain(device), late), Status::cancelled);
}

TEST_P(DeviceConformance, ACollectedTicketIsStillGoodToWaitFor) {
  const Ticket old = submit_ok(QueueKind::compute, {});
  for (int i = 0; i < 600; ++i) {
    submit_ok(QueueKind::compute, {}, {old});
    drain(device);
  }
  submit_ok(QueueKind::h2d, {}, {old});
  EXPECT_EQ(drain(device).at(0).status, Status::ok);
}

TEST_P(DeviceConformance, AFullQueueSaysBusyAndTakesWorkAgainAfterACompletion) {
  std::atomic<std::uint64_t> word{0};
  const Ticket gate = device.import_event({&word, 1}).ticket;
  const int room = device.queues()[queue(QueueKind::h2d).index].max_groups;
  for (int i = 0; i < room; ++i) submit_ok(QueueKind::h2d, {}, {gate});
  EXPECT_EQ(submit(QueueKind::h2d, {}).status, Status::busy);
  EXPECT_EQ(submit(QueueKind::d2h, {}).status, Status::ok) << "another queue has room";
  word = 1;
  EXPECT_TRUE(device.next_completion(10 * kSecond));
  EXPECT_EQ(drain(device).size(), static_cast<std::size_t>(room));
  EXPECT_EQ(submit(QueueKind::h2d, {}).status, Status::ok);
}

TEST_P(DeviceConformance, OperationsAreBoundedToo) {
  Memory memory(device, 64);
  const auto most =
      static_cast<std::size_t>(device.queues()[queue(QueueKind::compute).index].max_ops);
  EXPECT_EQ(submit(QueueKind::compute, std::vector<Op>(most + 1, Fill{memory.at(0, 1), 1})).status,
            Status::rejected)
      << "more than ever fits";
  std::atomic<std::uint64_t> word{0};
  const Ticket gate = device.import_event({&word, 1}).ticket;
  const std::vector<Op> third(most / 3, Fill{memory.at(0, 1), 1});
  for (int i = 0; i < 3; ++i) submit_ok(QueueKind::compute, third, {gate});
  EXPECT_EQ(submit(QueueKind::compute, third, {gate}).status, Status::busy);
  word = 1;
  EXPECT_EQ(drain(device).size(), 3u);
  submit_ok(QueueKind::compute, third);
  EXPECT_EQ(drain(device).size(), 1u);
}

TEST_P(DeviceConformance, RejectsWhatCannotBeDone) {
  Memory memory(device, 4096);
  const Address good = memory.at(0, 64);
  const SpaceId unknown{77};
  const PageShape page{.tokens = 16, .kv_heads = 1, .head_dim = 16};
  // 16 tokens of one page and one query, with so many scores and bytes of scratch.
  const auto score = [&](Bytes scores, Bytes scratch) {
    return Score{.queries = memory.at(0, 32),
                 .pages = memory.at(64, page_bytes(page)),
                 .page_table = memory.at(2000, 8),
                 .partials = memory.at(2008, partial_bytes(1, 16)),
                 .scores = memory.at(2100, 4 * scores),
                 .scratch = memory.at(2400, scratch),
                 .shape = page,
                 .tokens = 16,
                 .query_heads = 1,
                 .query_tokens = 1};
  };
  const std::vector<Op> bad = {Fill{memory.at(4096, 1), 0},
                               Fill{memory.at(4000, 97), 0},
                               Fill{memory.at(-1, 10), 0},
                               Fill{memory.at(0, 0), 0},
                               Fill{memory.at(0, -5), 0},
                               Fill{memory.at(INT64_MAX, 10), 0},
                               Fill{memory.at(10, INT64_MAX), 0},
                               Fill{{unknown, 0, 8}, 0},
                               Copy{good, memory.at(64, 63)},
                               Copy{good, memory.at(63, 64)},
                               Copy{good, good},
                               Checksum{good, memory.at(64, 4)},
                               Checksum{good, memory.at(60, 8)},
                               Verify{good, memory.at(64, 16)},
                               Merge{memory.at(0, 100), memory.at(100, 100), 2, 1, 8},
                               score(16, score_scratch_bytes(page) - 4),
                               score(15, score_scratch_bytes(page)),
                               EngineWork{-1}};
  for (std::size_t i = 0; i < bad.size(); ++i) {
    const auto before = memory.bytes();
    EXPECT_EQ(submit(QueueKind::compute, {Fill{good, 9}, bad[i]}).status, Status::rejected)
        << "operation " << i << ": " << name(bad[i]);
    drain(device);
    EXPECT_EQ(memory.bytes(), before) << "nothing of a rejected group is done";
  }
  EXPECT_EQ(device.submit(QueueId{99}, {}, {}).status, Status::rejected);
  EXPECT_EQ(submit(QueueKind::h2d, {}, {Ticket{123'456'789}}).status, Status::rejected);
  EXPECT_EQ(submit(QueueKind::h2d, {}, std::vector<Ticket>(kMaxDependencies + 1)).status,
            Status::rejected);
  EXPECT_EQ(device.import_event({nullptr, 1}).status, Status::rejected);
  EXPECT_EQ(device.register_space({SpaceInfo::Kind::host, 0, nullptr}).status, Status::rejected);
  EXPECT_FALSE(device.next_completion(kSecond));
}

TEST_P(DeviceConformance, AFailureStopsItsGroupAndCancelsWhatWaitsForIt) {
  Memory memory(device, 4096);
  const Ticket bad = submit_ok(
      QueueKind::compute, {Fill{memory.at(0, 64), 1}, Verify{memory.at(0, 64), memory.at(64, 8)},
                           Fill{memory.at(128, 64), 1}});
  const Ticket next = submit_ok(QueueKind::h2d, {Fill{memory.at(256, 64), 1}}, {bad});
  const Ticket after_next = submit_ok(QueueKind::d2h, {Fill{memory.at(320, 64), 1}}, {next});
  const Ticket other = submit_ok(QueueKind::compute, {Fill{memory.at(384, 64), 1}});
  const auto all = drain(device);
  EXPECT_EQ(outcome(all, bad), Status::checksum);
  EXPECT_EQ(outcome(all, next), Status::cancelled);
  EXPECT_EQ(outcome(all, after_next), Status::cancelled);
  EXPECT_EQ(outcome(all, other), Status::ok) << "the queue goes on";
  EXPECT_EQ(memory[0], 1);
  EXPECT_EQ(memory[128], 0) << "after the failure in its group";
  if (!GetParam().runs_ahead) {
    EXPECT_EQ(memory[256], 0);
    EXPECT_EQ(memory[320], 0);
  }
  EXPECT_EQ(memory[384], 1);
  const Ticket late = submit_ok(QueueKind::host, {Fill{memory.at(448, 64), 1}}, {bad});
  EXPECT_EQ(outcome(drain(device), late), Status::cancelled) << "failures are remembered";
}

TEST_P(DeviceConformance, EncodesPagesOrSaysThatItCannot) {
  Memory memory(device, kMiB);
  const PageShape shape{
      .tokens = 16, .kv_heads = 2, .head_dim = 64, .format = {fp16(), int4_token_head()}};
  const Bytes rows = 13 * 2 * 64 * 2;
  auto* elements = reinterpret_cast<std::uint16_t*>(memory.bytes().data());
  for (std::uint16_t i = 0; i < rows; ++i) elements[i] = i;  // both tensors, small numbers
  const Encode encode{memory.at(0, rows), memory.at(rows, rows),
                      memory.at(2 * rows, page_bytes(shape)), shape, 13};
  submit_ok(QueueKind::compute, {encode});
  EXPECT_EQ(drain(device).at(0).status, Status::ok);
  const auto page =
      std::as_bytes(std::span(memory.bytes()))
          .subspan(static_cast<std::size_t>(2 * rows), static_cast<std::size_t>(page_bytes(shape)));
  EXPECT_EQ(verify_page(page), Status::ok);
  std::vector<float> keys(13 * 2 * 64);
  decode_keys(shape, page, {}, keys);
  for (std::size_t i = 0; i < keys.size(); ++i)
    ASSERT_EQ(keys[i], from_fp16(static_cast<std::uint16_t>(i)));
  elements[12 * 128] = 0x7c00;
  const Ticket infinite = submit_ok(QueueKind::compute, {encode});
  EXPECT_EQ(outcome(drain(device), infinite), Status::rejected);
}

// Encode, copy, attend, merge, score across queues; the same attention in one piece is the
// reference, and that is held to double precision elsewhere.
TEST_P(DeviceConformance, AChainOfEncodeCopyAttendMergeAndScore) {
  const PageShape shape{
      .tokens = 16, .kv_heads = 2, .head_dim = 64, .format = both(int4_token_head())};
  const Bytes rows = 16 * 2 * 64 * 2, page = page_bytes(shape), query = 4 * 64 * 2;
  const Bytes part = partial_bytes(4, 64);
  constexpr int kPages = 6;
  Memory host(device, kMiB), gpu(device, kMiB, SpaceInfo::Kind::device);
  const auto kv = [&](int i) { return gpu.at(i * rows, rows); };
  const auto fresh = [&](int i) { return gpu.at(200'000 / 64 * 64 + i * page, page); };
  const auto staged = [&](int i) { return gpu.at(400'000 / 64 * 64 + i * page, page); };
  const auto offloaded = [&](int i) { return host.at(i * page, page); };
  const Address queries = gpu.at(600'000, query), table = gpu.at(610'000, 8 * kPages);
  const Address parts = gpu.at(620'000, 2 * part), merged = gpu.at(630'000, part);
  const Address whole = gpu.at(640'000, part);
  const Address scores = gpu.at(650'000, 4 * 16 * kPages), hidden = gpu.at(660'000, 8 * 2);
  const Address scratch = gpu.at(700'000, score_scratch_bytes(shape));

  std::uint32_t state = 7;
  const auto random_rows = [&](const Address& address) {
    for (Bytes i = 0; i < address.bytes; i += 2) {
      state = state * 1664525 + 1013904223;
      const std::uint16_t element =
          to_fp16(static_cast<float>(static_cast<int>(state >> 16) - 32768) / 16384);
      std::memcpy(gpu.bytes().data() + address.offset + i, &element, 2);
    }
  };
  for (int i = 0; i < 2 * kPages; ++i) random_rows(kv(i));
  random_rows(queries);
  for (int i = 0; i < kPages; ++i) {
    const Bytes offset = i * page;
    std::memcpy(gpu.bytes().data() + table.offset + 8 * i, &offset, 8);
  }
  std::vector<Op> encodes, out, back;
  for (int i = 0; i < kPages; ++i) {
    encodes.push_back(Encode{kv(2 * i), kv(2 * i + 1), fresh(i), shape, 16});
    out.push_back(Copy{fresh(i), offloaded(i)});
    back.push_back(Copy{offloaded(i), staged(i)});
  }
  const auto attend = [&](int first_page, int pages, const Address& to) {
    return Attend{.queries = queries,
                  .pages = gpu.at(staged(0).offset, kPages * page),
                  .page_table = gpu.at(table.offset + 8 * first_page, 8 * pages),
                  .partials = to,
                  .shape = shape,
                  .tokens = 16 * pages,
                  .query_heads = 4,
                  .query_tokens = 1,
                  .logit_scale = 0.125f};
  };
  const auto score = [&](int first_page, int pages, const Address& without) {
    return Score{.queries = queries,
                 .pages = gpu.at(staged(0).offset, kPages * page),
                 .page_table = gpu.at(table.offset + 8 * first_page, 8 * pages),
                 .partials = merged,
                 .scores = gpu.at(scores.offset + 4 * 16 * first_page, 4 * 16 * pages),
                 .scratch = scratch,
                 .shape = shape,
                 .tokens = 16 * pages,
                 .query_heads = 4,
                 .query_tokens = 1,
                 .logit_scale = 0.125f,
                 .hidden = without};
  };
  const Ticket encoded = submit_ok(QueueKind::compute, encodes);
  const Ticket gone = submit_ok(QueueKind::d2h, out, {encoded});
  const Ticket there = submit_ok(QueueKind::h2d, back, {gone});
  const auto slice = [&](int p) { return gpu.at(parts.offset + p * part, part); };
  submit_ok(QueueKind::compute,
            {attend(0, 2, slice(0)), attend(2, 4, slice(1)), Merge{parts, merged, 2, 4, 64},
             attend(0, kPages, whole), score(0, 2, {}), score(2, 4, {})},
            {there});
  for (const Completion& completion : drain(device)) ASSERT_EQ(completion.status, Status::ok);
  for (int i = 0; i < kPages; ++i) {
    const auto bytes =
        std::as_bytes(std::span(gpu.bytes()))
            .subspan(static_cast<std::size_t>(staged(i).offset), static_cast<std::size_t>(page));
    EXPECT_EQ(verify_page(bytes), Status::ok);
  }
  const auto floats = [&](const Address& address) {
    std::vector<float> values(static_cast<std::size_t>(address.bytes / 4));
    std::memcpy(values.data(), gpu.bytes().data() + address.offset,
                static_cast<std::size_t>(address.bytes));
    return values;
  };
  const std::vector<float> one = floats(whole), two = floats(merged);
  for (std::size_t i = 0; i < one.size(); ++i) ASSERT_NEAR(one[i], two[i], 1e-3f);
  EXPECT_GT(one[64 + 1], 1) << "the sum of the first row";
  const std::vector<float> mass = floats(scores);
  EXPECT_NEAR(std::accumulate(mass.begin(), mass.end(), 0.0), 1, 0.015);
  EXPECT_GT(*std::min_element(mass.begin(), mass.end()), 0);

  // Tokens 3 and 70 hidden: the others keep their scores.
  gpu.bytes()[static_cast<std::size_t>(hidden.offset)] = std::byte{1 << 3};
  gpu.bytes()[static_cast<std::size_t>(hidden.offset + 8)] = std::byte{1 << 6};
  submit_ok(QueueKind::compute, {score(0, kPages, hidden)});
  ASSERT_EQ(drain(device).at(0).status, Status::ok);
  const std::vector<float> masked = floats(scores);
  for (std::size_t t = 0; t < mass.size(); ++t)
    EXPECT_EQ(masked[t], t == 3 || t == 70 ? 0 : mass[t]) << t;

  const Bytes outside = staged(0).offset + kPages * page;
  std::memcpy(gpu.bytes().data() + table.offset, &outside, 8);
  const Ticket astray = submit_ok(QueueKind::compute, {attend(0, 1, whole)});
  EXPECT_EQ(outcome(drain(device), astray), Status::rejected);
  const Ticket astray_too = submit_ok(QueueKind::compute, {score(0, 1, {})});
  EXPECT_EQ(outcome(drain(device), astray_too), Status::rejected);
}

TEST_P(DeviceConformance, EngineWorkExistsInVirtualTimeOnly) {
  const Nanos before_ns = device.now();
  const Ticket work = submit_ok(QueueKind::compute, {EngineWork{5 * kMillisecond}});
  const auto all = drain(device);
  EXPECT_EQ(outcome(all, work), GetParam().virtual_time ? Status::ok : Status::unsupported);
  if (GetParam().virtual_time) {
    EXPECT_GE(device.now() - before_ns, 5 * kMillisecond);
  }
}

TEST_P(DeviceConformance, WaitsForAnEngineEventWithinItsBound) {
  Memory memory(device, 64);
  std::atomic<std::uint64_t> word{4};
  const Submitted event = device.import_event({&word, 5});
  ASSERT_EQ(event.status, Status::ok);
  submit_ok(QueueKind::compute, {Fill{memory.at(0, 64), 1}}, {event.ticket});
  EXPECT_FALSE(device.next_completion(2 * kMillisecond));
  EXPECT_EQ(memory[0], 0);
  std::jthread engine([&] { word.store(6, std::memory_order_release); });
  engine.join();
  EXPECT_EQ(drain(device).at(0).status, Status::ok);
  EXPECT_EQ(memory[0], 1);
  submit_ok(QueueKind::compute, {}, {event.ticket});
  EXPECT_EQ(drain(device).at(0).status, Status::ok) << "an event that happened stays so";
}

TEST_P(DeviceConformance, EngineEventsAreBounded) {
  std::atomic<std::uint64_t> word{0};
  Submitted last;
  for (int i = 0; i < kMaxEngineEvents; ++i) {
    last = device.import_event({&word, 1});
    EXPECT_EQ(last.status, Status::ok);
  }
  std::atomic<std::uint64_t> past{1};
  EXPECT_EQ(device.import_event({&past, 1}).status, Status::ok) << "nothing to wait for";
  EXPECT_EQ(device.import_event({&word, 1}).status, Status::busy);
  word = 1;
  submit_ok(QueueKind::compute, {}, {last.ticket});
  EXPECT_EQ(drain(device).size(), 1u);
  EXPECT_EQ(device.import_event({&word, 1}).status, Status::ok);
}

TEST_P(DeviceConformance, ExportsRaiseTheWordWhateverTheOutcome) {
  Memory memory(device, 64);
  std::atomic<std::uint64_t> gate_word{0}, good_word{0}, bad_word{0}, high_word{50};
  const Ticket gate = device.import_event({&gate_word, 1}).ticket;
  const Ticket good = submit_ok(QueueKind::compute, {Fill{memory.at(0, 8), 1}}, {gate});
  const Ticket bad =
      submit_ok(QueueKind::host, {Verify{memory.at(16, 16), memory.at(32, 8)}}, {good});
  EXPECT_EQ(device.export_event(good, {&good_word, 7}), Status::ok);
  EXPECT_EQ(device.export_event(bad, {&bad_word, 8}), Status::ok);
  EXPECT_EQ(good_word, 0u);
  gate_word = 1;
  EXPECT_EQ(outcome(drain(device), bad), Status::checksum);
  EXPECT_EQ(good_word, 7u);
  EXPECT_EQ(bad_word, 8u);
  EXPECT_EQ(device.export_event(good, {&high_word, 7}), Status::ok);
  EXPECT_EQ(high_word, 50u) << "a word is never lowered";
  EXPECT_EQ(device.export_event(Ticket{999'999}, {&good_word, 9}), Status::rejected);
}

TEST_P(DeviceConformance, AnIdleDeviceAnswersAtOnce) {
  const auto begin = std::chrono::steady_clock::now();
  EXPECT_FALSE(device.next_completion(3600 * kSecond));
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(60));
}

TEST_P(DeviceConformance, TimeNeverGoesBackAndCompletionsAreNotInTheFuture) {
  Memory memory(device, kMiB);
  Nanos last_ns = device.now();
  for (int i = 0; i < 20; ++i) {
    submit_ok(QueueKind::h2d, {Fill{memory.at(0, kMiB), 1}});
    const auto completion = device.next_completion(10 * kSecond);
    ASSERT_TRUE(completion);
    EXPECT_GE(completion->at_ns, last_ns);
    EXPECT_LE(completion->at_ns, device.now());
    last_ns = device.now();
  }
}

TEST(DeviceLifetime, ADeviceWithUnfinishedWorkIsDestroyedAndRaisesItsExports) {
  std::atomic<std::uint64_t> never{0}, raised{0}, raised_by_sim{0};
  {
    Host host;
    Memory memory(host.device, 64);
    const Ticket gate = host.device.import_event({&never, 1}).ticket;
    const auto stuck =
        host.device.submit(*find_queue(host.device, QueueKind::compute),
                           std::vector<Op>{Fill{memory.at(0, 64), 1}}, std::vector<Ticket>{gate});
    EXPECT_EQ(host.device.export_event(stuck.ticket, {&raised, 1}), Status::ok);
    Sim sim;
    const auto open = sim.device.submit(*find_queue(sim.device, QueueKind::compute),
                                        std::vector<Op>{EngineWork{1}}, {});
    EXPECT_EQ(sim.device.export_event(open.ticket, {&raised_by_sim, 1}), Status::ok);
  }
  EXPECT_EQ(raised, 1u);
  EXPECT_EQ(raised_by_sim, 1u);
}

TEST(DeviceLifetime, HostMemoryIsNeeded) {
  Host host;
  EXPECT_EQ(host.device.register_space({SpaceInfo::Kind::host, 64, nullptr}).status,
            Status::rejected);
}

}  // namespace
}  // namespace modalkv
