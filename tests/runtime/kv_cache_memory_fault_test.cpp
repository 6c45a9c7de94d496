// The KV cache on memory that is not what was asked for: not pinned, on no particular node, too
// little of it; or that flips bits.
#include <gtest/gtest.h>

#include <atomic>
#include <functional>
#include <memory>

#include "kernels/page_codec.hpp"
#include "offload/host_pools.hpp"
#include "tests/offload/fake_host_memory.hpp"
#include "tests/runtime/history_worlds.hpp"

namespace modalkv {
namespace {

HistoryResult play(HistoryMemory& memory, std::uint64_t seed) {
  Checked<JitteredSim> world;
  return replay(world.device, world.device, memory, {.seed = seed}, ActionSource(seed).draw(60));
}

constexpr Bytes kChunkBytes = 256 * kKiB;
constexpr int kChunks = 8;

struct PoolFault {
  const char* name;
  std::function<void(FakeHostMemory&, FakePinner&)> plant;
  std::function<bool(const HostPoolReport&)> is_told;
};

void PrintTo(const PoolFault& fault, std::ostream* out) {
  *out << fault.name;
}

class KvCacheHostPool : public testing::TestWithParam<PoolFault> {};

TEST_P(KvCacheHostPool, ServesWhatItHasAndSaysWhatItHasNot) {
  const Topology topology = read_topology();
  const HostPoolShare share{homes_by_distance(topology, "").front(), kChunks * kChunkBytes};
  FakeHostMemory system;
  FakePinner pinner;
  GetParam().plant(system, pinner);
  const HostPools pools({&share, 1}, {.chunk_bytes = kChunkBytes, .headroom_bytes = 0}, system,
                        pinner);
  const Bytes usable = pools.wait_usable(0, kChunks * kChunkBytes, 60 * kSecond);
  EXPECT_TRUE(GetParam().is_told(pools[0].report())) << pools.describe();
  ASSERT_GE(usable, kChunkBytes);
  for (std::uint64_t seed = 1; seed <= 3; ++seed) {
    HistoryMemory memory;
    memory.host = {pools[0].memory(), static_cast<std::size_t>(usable)};
    const HistoryResult result = play(memory, seed);
    EXPECT_EQ(result.problem, "") << "seed " << seed;
    EXPECT_GT(result.good_outputs, 20);
  }
}

INSTANTIATE_TEST_SUITE_P(
    Faults, KvCacheHostPool,
    testing::Values(
        PoolFault{"PinRefused",
                  [](auto&, auto& pinner) {
                    pinner.on_pin = [](std::size_t) {
                      return std::string("no more may be locked");
                    };
                  },
                  [](const auto& report) {
                    return report.unpinned_chunks == kChunks && report.pinned_bytes == 0 &&
                           report.pin_failure == "no more may be locked";
                  }},
        PoolFault{"PinSometimesRefused",
                  [](auto&, auto& pinner) {
                    pinner.on_pin = [](std::size_t call) {
                      return std::string(call % 2 == 0 ? "" : "not this one");
                    };
                  },
                  [](const auto& report) { return report.unpinned_chunks == kChunks / 2; }},
        PoolFault{"BindRefused",
                  [](auto& system, auto&) {
                    system.on_bind = [](int) { return std::string("mbind: not permitted"); };
                    system.on_bind_thread = [](auto) { return std::string("not permitted"); };
                  },
                  [](const auto& report) {
                    return report.unbound_chunks == kChunks && report.unbound_threads > 0 &&
                           report.bind_failure == "mbind: not permitted";
                  }},
        PoolFault{"TheMachineRunsOut",
                  [](auto& system, auto&) {
                    system.on_room = [asked = std::make_shared<std::atomic<int>>(0)](int) {
                      return MemoryRoom{++*asked <= 3 ? kGiB : 0, "the machine"};
                    };
                  },
                  [](const auto& report) {
                    return report.usable_bytes < report.asked_bytes && !report.stopped_by.empty();
                  }}),
    [](const auto& test) { return std::string(test.param.name); });

// Calls that found no room in histories that were well otherwise.
std::int64_t calls_without_room(Bytes device_bytes, Bytes host_bytes, std::uint64_t histories,
                                int least_outputs) {
  std::int64_t no_space = 0;
  for (std::uint64_t seed = 1; seed <= histories; ++seed) {
    HistoryMemory memory(device_bytes, host_bytes);
    const HistoryResult result = play(memory, seed);
    EXPECT_EQ(result.problem, "") << "seed " << seed;
    EXPECT_GT(result.good_outputs, least_outputs);
    no_space += result.counters.no_space;
  }
  return no_space;
}

TEST(KvCacheMemory, AFullHostIsToldAndHarmsNobody) {
  EXPECT_GT(calls_without_room(3 * kMiB + 300 * kKiB, 70 * kKiB, 32, 20), 0);
}

TEST(KvCacheMemory, AFullDeviceIsToldAndHarmsNobody) {
  EXPECT_GT(calls_without_room(3 * kMiB + 240 * kKiB, 2 * kMiB, 4, 5), 0);
}

// Between the cache and the device: knows where everything lies.
class Flipping : public ForwardingDevice {
 public:
  explicit Flipping(Device& inner) : ForwardingDevice(inner) {}

  RegisteredSpace register_space(const SpaceInfo& info) override {
    spaces_.push_back(info.memory);
    return inner_.register_space(info);
  }
  int flips() const { return flips_; }

 protected:
  std::byte* memory(const Address& where) const {
    return spaces_[where.space.index] + where.offset;
  }

  int flips_ = 0;

 private:
  std::vector<std::byte*> spaces_;
};

// Now and then an entry of a page table points far out, while the operation that reads it is in
// flight.
class FlippingTables final : public Flipping {
 public:
  using Flipping::Flipping;

  Submitted submit(QueueId queue, std::span<const Op> ops, std::span<const Ticket> after) override {
    const Submitted submitted = inner_.submit(queue, ops, after);
    if (submitted.status != Status::ok || ops.empty() || flipped_ != nullptr) return submitted;
    const auto* attend = std::get_if<Attend>(&ops.back());
    if (attend == nullptr || ++attends_ % 5 != 0) return submitted;
    flipped_ = memory(attend->page_table) + 5;
    *flipped_ ^= std::byte{0x10};
    until_ = submitted.ticket;
    ++flips_;
    return submitted;
  }
  std::optional<Completion> next_completion(Nanos timeout_ns) override {
    const auto completion = inner_.next_completion(timeout_ns);
    if (completion && completion->ticket == until_ && flipped_ != nullptr) {
      *flipped_ ^= std::byte{0x10};
      flipped_ = nullptr;
    }
    return completion;
  }

 private:
  std::byte* flipped_ = nullptr;
  Ticket until_{};
  int attends_ = 0;
};

TEST(KvCacheMemory, ABitFlippedInAPageTableFailsTheStepAndNoOther) {
  int flips = 0, failed_steps = 0;
  for (std::uint64_t seed = 1; seed <= 6; ++seed) {
    HistoryMemory memory;
    Sim sim;
    FlippingTables flipping(sim.device);
    const HistoryResult result =
        History(flipping, memory, {.seed = seed, .faults = true}).run(ActionSource(seed).draw(60));
    EXPECT_EQ(result.problem, "") << "seed " << seed;
    EXPECT_EQ(result.counters.lost_tokens, 0);
    flips += flipping.flips();
    failed_steps += result.failed_steps;
  }
  EXPECT_GT(flips, 20);
  EXPECT_GT(failed_steps, flips / 2);
}

// Now and then a bit of a closed page that is about to be read flips, wherever it lies, and stays
// so.
class FlippingPages final : public Flipping {
 public:
  using Flipping::Flipping;

  Submitted submit(QueueId queue, std::span<const Op> ops, std::span<const Ticket> after) override {
    for (const Op& op : ops)
      if (const auto* verify = std::get_if<VerifyPage>(&op)) flip(verify->page);
    return inner_.submit(queue, ops, after);
  }

 private:
  void flip(const Address& where) {
    const std::span page(memory(where), static_cast<std::size_t>(where.bytes));
    if (verify_page(page) != Status::ok || ++seen_ % 23 != 0) return;
    page[seen_ * 37 % page.size()] ^= std::byte{0x10};
    ++flips_;
  }

  std::size_t seen_ = 0;
};

TEST(KvCacheMemory, ABitFlippedInAnyTierGivesNoWrongOutput) {
  int flips = 0;
  RuntimeCounters sum;
  for (std::uint64_t seed = 1; seed <= 40; ++seed) {
    HistoryMemory memory;
    Sim sim;
    FlippingPages flipping(sim.device);
    const HistoryResult result =
        History(flipping, memory, {.seed = seed, .faults = true}).run(ActionSource(seed).draw(60));
    EXPECT_EQ(result.problem, "") << "seed " << seed;
    flips += flipping.flips();
    sum.corrupt_pages += result.counters.corrupt_pages;
    sum.lost_tokens += result.counters.lost_tokens;
  }
  EXPECT_GT(flips, 20);
  // A page counts once, and not where its tokens are lost already; some are never read again.
  EXPECT_GT(sum.corrupt_pages, flips / 4);
  EXPECT_GT(sum.lost_tokens, 0);
}

}  // namespace
}  // namespace modalkv
