#include "tests/gpu/device_checks.hpp"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <memory>
#include <utility>

#include "kernels/effects.hpp"
#include "kernels/number.hpp"
#include "offload/cuda/cuda_device.hpp"
#include "tests/offload/random_program.hpp"

namespace modalkv {
namespace {

constexpr QueueKind kKinds[] = {QueueKind::h2d, QueueKind::d2h, QueueKind::compute,
                                QueueKind::host};

// Pinned memory: host and GPU both reach it, so random programs may run anywhere. Before it may
// come the GPU's own, as space 0.
class Bench {
 public:
  Bench(GpuDriver& driver, CheckReport& report, Bytes bytes, std::span<std::byte> of_gpu = {},
        Nanos patience_ns = 20 * kSecond)
      : report_(report),
        patience_ns_(patience_ns),
        memory_(driver.make_pinned(bytes)),
        device_(driver, standard_queues(1), {.stuck_ns = patience_ns}) {
    if (!of_gpu.empty()) space(SpaceInfo::Kind::device, of_gpu);
    space_ = space(SpaceInfo::Kind::host, memory_);
  }

  SpaceId space(SpaceInfo::Kind kind, std::span<std::byte> memory) {
    const RegisteredSpace registered =
        device_.register_space({kind, static_cast<Bytes>(memory.size()), memory.data()});
    report_.expect(registered.status == Status::ok, "a space was not taken");
    return registered.space;
  }
  CudaDevice& device() { return device_; }
  Address at(Bytes offset, Bytes bytes) const { return {space_, offset, bytes}; }
  std::uint8_t byte(Bytes offset) const {
    return static_cast<std::uint8_t>(memory_[static_cast<std::size_t>(offset)]);
  }
  std::span<std::byte> memory() { return memory_; }

  Ticket submit(QueueKind kind, const std::vector<Op>& ops, const std::vector<Ticket>& after = {}) {
    Submitted submitted;
    do {
      submitted = device_.submit(find_queue(device_, kind).value(), ops, after);
      if (submitted.status == Status::busy) keep(device_.next_completion(kSecond));
    } while (submitted.status == Status::busy);
    return taken(submitted);
  }
  PreparedGroup prepare(QueueKind kind, const std::vector<Op>& ops) {
    const Prepared prepared = device_.prepare(find_queue(device_, kind).value(), ops);
    report_.expect(prepared.status == Status::ok,
                   "prepare: " + std::string(name(prepared.status)) + " " + device_.why_lost());
    return prepared.group;
  }
  Ticket submit(PreparedGroup group, const std::vector<Ticket>& after = {}) {
    return taken(device_.submit(group, after));
  }
  /// All outcomes since the last call.
  std::vector<Completion> drain() {
    while (keep(device_.next_completion(2 * patience_ns_))) {
    }
    return std::exchange(ended_, {});
  }
  void expect_outcome(const std::vector<Completion>& all, Ticket ticket, Status status) {
    for (const Completion& completion : all)
      if (completion.ticket == ticket)
        return report_.expect(completion.status == status,
                              "a group ended in " + std::string(name(completion.status)) +
                                  ", expected " + std::string(name(status)) + " " +
                                  device_.why_lost());
    report_.expect(false, "a group never ended");
  }

 private:
  Ticket taken(const Submitted& submitted) {
    report_.expect(submitted.status == Status::ok,
                   "submit: " + std::string(name(submitted.status)) + " " + device_.why_lost());
    return submitted.ticket;
  }
  bool keep(const std::optional<Completion>& completion) {
    if (completion) ended_.push_back(*completion);
    return completion.has_value();
  }

  CheckReport& report_;
  const Nanos patience_ns_;
  std::span<std::byte> memory_;
  SpaceId space_;
  std::vector<Completion> ended_;
  CudaDevice device_;
};

std::size_t most_memory(const std::vector<KernelCase>& cases) {
  std::size_t most = 0;
  for (const KernelCase& one : cases) most = std::max(most, one.memory.size());
  return most;
}

// Comes first, while no kernel has been launched: what is not loaded yet would wait for a stream
// that waits for us.
void check_first_launches(GpuDriver& driver, CheckReport& report) {
  report.begin("no kernel's first launch waits for what streams hold");
  const std::vector<KernelCase> cases = kernel_cases(true);
  const std::size_t most = most_memory(cases);
  Bench bench(driver, report, static_cast<Bytes>(most));
  std::atomic<std::uint64_t> gate{0};
  const Ticket event = bench.device().import_event({&gate, 1}).ticket;
  const Ticket gated = bench.submit(QueueKind::d2h, {}, {event});
  for (const KernelCase& one : cases) {
    std::copy(one.memory.begin(), one.memory.end(), bench.memory().begin());
    const Ticket run = bench.submit(QueueKind::compute, one.ops);
    const auto first = bench.device().next_completion(20 * kSecond);
    report.expect(first && first->ticket == run, one.name);
  }
  gate = 1;
  bench.expect_outcome(bench.drain(), gated, Status::ok);
}

void check_order(GpuDriver& driver, CheckReport& report) {
  report.begin("a queue keeps its order, tickets order queues");
  Bench bench(driver, report, 4096);
  for (int round = 0; round < 200; ++round) {
    const auto value = static_cast<std::uint8_t>(round);
    const Ticket top = bench.submit(QueueKind::compute, {Fill{bench.at(0, 64), value}});
    const Ticket left =
        bench.submit(QueueKind::h2d, {Copy{bench.at(0, 64), bench.at(64, 64)}}, {top});
    const Ticket right =
        bench.submit(QueueKind::d2h, {Copy{bench.at(0, 64), bench.at(128, 64)}}, {top});
    bench.submit(QueueKind::host, {Copy{bench.at(64, 128), bench.at(256, 128)}}, {left, right});
    const auto all = bench.drain();
    for (const Completion& completion : all)
      report.expect(completion.status == Status::ok, std::string(name(completion.status)));
    report.expect(bench.byte(256) == value && bench.byte(383) == value, "old bytes were copied");
  }
}

void check_random_programs(GpuDriver& driver, CheckReport& report) {
  constexpr Bytes kSpace = RandomProgram::kPage * RandomProgram::kPages;
  for (std::uint64_t seed = 1; seed <= 10; ++seed) {
    report.begin("random program " + std::to_string(seed));
    Bench bench(driver, report, 2 * kSpace);
    std::vector<std::byte> expected(static_cast<std::size_t>(2 * kSpace));
    for (std::size_t i = 0; i < expected.size(); ++i)
      expected[i] = bench.memory()[i] = static_cast<std::byte>(i * 31 + 5);
    RandomProgram program = random_program(seed, 400, SpaceId{0}, SpaceId{1});
    const SpaceId second = bench.space(SpaceInfo::Kind::host,
                                       bench.memory().subspan(static_cast<std::size_t>(kSpace)));
    report.expect(second == SpaceId{1}, "spaces are numbered in order");
    std::byte* spaces[] = {expected.data(), expected.data() + kSpace};
    std::vector<Ticket> tickets;
    for (const ProgramGroup& group : program.groups) {
      for (const Op& op : group.ops) (void)perform(op, spaces);
      std::vector<Ticket> after;
      for (const std::size_t on : group.after) after.push_back(tickets[on]);
      tickets.push_back(bench.submit(kKinds[group.queue], group.ops, after));
    }
    bench.drain();
    report.expect(std::equal(expected.begin(), expected.end(), bench.memory().begin()),
                  "other bytes than in order");
  }
}

void check_failures(GpuDriver& driver, CheckReport& report) {
  report.begin("a failure stops its group and cancels what waits for it");
  Bench bench(driver, report, 4096);
  const Ticket bad = bench.submit(
      QueueKind::compute, {Fill{bench.at(0, 64), 1}, Verify{bench.at(0, 64), bench.at(64, 8)},
                           Fill{bench.at(128, 64), 1}});
  const Ticket next = bench.submit(QueueKind::h2d, {Fill{bench.at(256, 64), 1}}, {bad});
  const Ticket other = bench.submit(QueueKind::compute, {Fill{bench.at(384, 64), 1}});
  const Ticket work = bench.submit(QueueKind::compute, {EngineWork{1}});
  const auto all = bench.drain();
  bench.expect_outcome(all, bad, Status::checksum);
  bench.expect_outcome(all, next, Status::cancelled);
  bench.expect_outcome(all, other, Status::ok);
  bench.expect_outcome(all, work, Status::unsupported);
  report.expect(bench.byte(128) == 0, "an operation after the failure was run");
  report.expect(bench.byte(384) == 1, "the queue did not go on");
}

void check_events(GpuDriver& driver, CheckReport& report) {
  report.begin("events of the engine, and its streams");
  Bench bench(driver, report, 4096);
  std::atomic<std::uint64_t> gate{0}, done{0};
  const Ticket event = bench.device().import_event({&gate, 1}).ticket;
  const Ticket gated = bench.submit(QueueKind::compute, {Fill{bench.at(0, 64), 1}}, {event});
  report.expect(bench.device().export_event(gated, {&done, 5}) == Status::ok, "export");
  report.expect(!bench.device().next_completion(20 * kMillisecond), "it did not wait");
  report.expect(bench.byte(0) == 0 && done == 0, "it did not wait");
  // Pools grow meanwhile: pinning may not wait for a stream that waits for us.
  const std::unique_ptr<std::byte, decltype(&std::free)> pool(
      static_cast<std::byte*>(std::aligned_alloc(4096, kMiB)), &std::free);
  const auto began = std::chrono::steady_clock::now();
  const std::string refused = driver.register_host({pool.get(), kMiB});
  report.expect(refused.empty(), refused);
  report.expect(std::chrono::steady_clock::now() - began < std::chrono::seconds(2),
                "pinning waited for a stream");
  driver.unregister_host({pool.get(), kMiB});
  gate = 1;
  bench.expect_outcome(bench.drain(), gated, Status::ok);
  report.expect(bench.byte(0) == 1 && done == 5, "it did not run, or told nobody");

  const GpuStream stream = driver.make_stream(false);
  const std::span<std::byte> gpu = driver.make_device_memory(4096);
  const SpaceId on_gpu = bench.space(SpaceInfo::Kind::device, gpu);
  std::byte* const host = bench.memory().data();
  const auto engine_copies = [&](std::byte* to, const std::byte* from) {
    const GpuCopy copy{to, from, 1};
    report.expect(driver.copy(stream, {&copy, 1}) == GpuResult::ok, "copy");
  };
  for (int round = 2; round < 100; ++round) {
    // The engine's stream writes, ours copies on, the engine's brings back what ours copied.
    host[1024 + round] = static_cast<std::byte>(round);
    engine_copies(gpu.data(), host + 1024 + round);
    const Submitted point = bench.device().import_stream(stream);
    report.expect(point.status == Status::ok, "import of a stream");
    const Ticket copied =
        bench.submit(QueueKind::d2h, {Copy{{on_gpu, 0, 1}, bench.at(128, 1)}}, {point.ticket});
    report.expect(bench.device().make_wait(stream, copied) == Status::ok, "a stream that waits");
    engine_copies(gpu.data() + 64, host + 128);
    engine_copies(host + 192, gpu.data() + 64);
    const Submitted end = bench.device().import_stream(stream);
    const Ticket last = bench.submit(QueueKind::host, {}, {end.ticket});
    bench.expect_outcome(bench.drain(), last, Status::ok);
    report.expect(host[192] == static_cast<std::byte>(round), "a stream saw old bytes");
  }
}

void check_bounds(GpuDriver& driver, CheckReport& report) {
  report.begin("thousands of gated operations make nobody wait");
  Bench bench(driver, report, 4096);
  std::atomic<std::uint64_t> gate{0};
  const Ticket event = bench.device().import_event({&gate, 1}).ticket;
  for (int i = 0; i < 200; ++i)
    bench.submit(QueueKind::compute,
                 std::vector<Op>(20, Fill{bench.at(0, 64), static_cast<std::uint8_t>(i)}), {event});
  gate = 1;
  report.expect(bench.drain().size() == 200, "groups are missing");
  report.expect(bench.byte(0) == 199, "the order was not kept");
}

// Kernels and copies of every kind, captured once, against the same submitted anew.
void check_prepared(GpuDriver& driver, CheckReport& report) {
  std::vector<KernelCase> cases = kernel_cases(true);
  const std::size_t most = most_memory(cases);
  const auto bytes = static_cast<Bytes>(most);
  const std::span<std::byte> gpu = driver.make_device_memory(bytes);
  Bench bench(driver, report, 2 * bytes, gpu);
  const Address on_gpu{{0}, 0, bytes};
  const std::vector<Op> up = {Copy{bench.at(0, bytes), on_gpu}};
  const std::vector<Op> down = {Copy{on_gpu, bench.at(bytes, bytes)}};
  const PreparedGroup prepared_up = bench.prepare(QueueKind::h2d, up);
  for (const KernelCase& one : cases) {
    report.begin("prepared " + one.name);
    const PreparedGroup prepared = bench.prepare(QueueKind::compute, one.ops);
    std::copy(one.memory.begin(), one.memory.end(), bench.memory().begin());
    Status status = Status::ok;
    std::vector<std::byte> expected;
    for (int run = 0; run < 4; ++run) {
      const bool plain = run == 0;
      bench.submit(QueueKind::h2d, {Fill{on_gpu, 0x5a}});  // nothing is left of the run before
      const Ticket there = plain ? bench.submit(QueueKind::h2d, up) : bench.submit(prepared_up);
      const Ticket done = plain ? bench.submit(QueueKind::compute, one.ops, {there})
                                : bench.submit(prepared, {there});
      const auto all = bench.drain();
      if (plain)
        for (const Completion& completion : all)
          if (completion.ticket == done) status = completion.status;
      bench.expect_outcome(all, done, status);
      if (status != Status::ok) continue;  // what it leaves is undefined
      const Ticket back = bench.submit(QueueKind::d2h, down);
      bench.expect_outcome(bench.drain(), back, Status::ok);
      const auto found = bench.memory().subspan(most, one.memory.size());
      if (plain) expected.assign(found.begin(), found.end());
      report.expect(std::equal(expected.begin(), expected.end(), found.begin()),
                    "other bytes than submitted anew, in run " + std::to_string(run));
    }
  }
}

// Work that nobody collects, as when a program ends.
void check_end(GpuDriver& driver, CheckReport& report) {
  report.begin("a device goes with work outstanding");
  std::atomic<std::uint64_t> never{0}, raised{0};
  const auto began = std::chrono::steady_clock::now();
  const std::span<std::byte> memory = driver.make_pinned(4096);
  {
    CudaDevice device(driver);
    const auto space = device.register_space({SpaceInfo::Kind::host, 4096, memory.data()}).space;
    const Ticket event = device.import_event({&never, 1}).ticket;
    const Submitted left =
        device.submit(find_queue(device, QueueKind::compute).value(),
                      std::vector<Op>{Fill{{space, 0, 64}, 1}}, std::vector<Ticket>{event});
    report.expect(device.export_event(left.ticket, {&raised, 1}) == Status::ok, "export");
  }
  report.expect(raised == 1, "an exported word was not raised");
  report.expect(memory[0] == std::byte{0}, "a kernel ran that was dropped");
  report.expect(std::chrono::steady_clock::now() - began < std::chrono::seconds(4),
                "it took seconds");
}

float largest(const std::vector<float>& values) {
  float most = 0;
  for (const float value : values) most = std::max(most, std::fabs(value));
  return most;
}

std::vector<float> floats_of(std::span<const std::byte> memory, const Address& at, bool fp16) {
  const std::size_t width = fp16 ? 2 : 4;
  std::vector<float> values(static_cast<std::size_t>(at.bytes) / width);
  for (std::size_t i = 0; i < values.size(); ++i) {
    const std::byte* element = memory.data() + at.offset + i * width;
    if (fp16) {
      std::uint16_t bits = 0;
      std::memcpy(&bits, element, 2);
      values[i] = from_fp16(bits);
    } else {
      std::memcpy(&values[i], element, 4);
    }
  }
  return values;
}

void compare_loosely(std::span<const std::byte> expected, std::span<const std::byte> found,
                     const Address& at, bool fp16, CheckReport& report) {
  const auto want = floats_of(expected, at, fp16), have = floats_of(found, at, fp16);
  const float bound = kLooseShare * largest(want) + 1e-4f;
  for (std::size_t i = 0; i < want.size(); ++i)
    if (!(std::fabs(want[i] - have[i]) <= bound))
      return report.expect(
          false, "element " + std::to_string(i) + " of " + std::to_string(want.size()) + " is " +
                     std::to_string(have[i]) + ", expected " + std::to_string(want[i]));
}

}  // namespace

void check_device(GpuDriver& driver, CheckReport& report) {
  for (const auto& check : {check_first_launches, check_order, check_random_programs,
                            check_failures, check_events, check_bounds, check_prepared, check_end})
    check(driver, report);
}

void check_kernels(GpuDriver& driver, const std::vector<KernelCase>& cases, CheckReport& report,
                   Nanos patience_ns) {
  const std::size_t most = most_memory(cases);
  const std::span<std::byte> gpu = driver.make_device_memory(static_cast<Bytes>(most));
  Bench bench(driver, report, static_cast<Bytes>(most), gpu, patience_ns);
  for (const KernelCase& one : cases) {
    report.begin(one.name);
    const auto bytes = static_cast<Bytes>(one.memory.size());
    std::vector<std::byte> expected = one.memory;
    std::byte* host = expected.data();
    Status status = Status::ok;
    std::vector<Address> unknown = one.ignored;
    for (const Op& op : one.ops) {
      status = perform(op, {&host, 1});
      if (status == Status::ok) continue;
      for (const Access& access : accesses(op))
        if (access.writes) unknown.push_back(access.where);
      break;
    }
    std::copy(one.memory.begin(), one.memory.end(), bench.memory().begin());
    const Ticket up = bench.submit(QueueKind::h2d, {Copy{bench.at(0, bytes), {{0}, 0, bytes}}});
    bench.expect_outcome(bench.drain(), up, Status::ok);
    const Ticket run = bench.submit(QueueKind::compute, one.ops);
    bench.expect_outcome(bench.drain(), run, status);
    if (!bench.device().why_lost().empty()) return;
    const Ticket down = bench.submit(QueueKind::d2h, {Copy{{{0}, 0, bytes}, bench.at(0, bytes)}});
    bench.expect_outcome(bench.drain(), down, Status::ok);
    std::vector<std::byte> found(bench.memory().begin(), bench.memory().begin() + bytes);
    if (status == Status::ok) {
      for (const Address& at : one.loose_fp16) compare_loosely(expected, found, at, true, report);
      for (const Address& at : one.loose_f32) compare_loosely(expected, found, at, false, report);
    }
    unknown.insert(unknown.end(), one.loose_fp16.begin(), one.loose_fp16.end());
    unknown.insert(unknown.end(), one.loose_f32.begin(), one.loose_f32.end());
    for (const Address& at : unknown)
      std::copy_n(expected.begin() + at.offset, at.bytes, found.begin() + at.offset);
    const auto wrong = std::mismatch(expected.begin(), expected.end(), found.begin());
    report.expect(wrong.first == expected.end(),
                  "byte " + std::to_string(wrong.first - expected.begin()) + " is wrong");
  }
}

}  // namespace modalkv
