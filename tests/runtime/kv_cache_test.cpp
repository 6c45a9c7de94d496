// The KV cache under random histories, on real threads and in virtual time, checked for hazards;
// and under faults.
#include "runtime/kv_cache.hpp"

#include <gtest/gtest-spi.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <deque>
#include <optional>

#include "kernels/page_codec.hpp"
#include "tests/offload/devices.hpp"
#include "tests/runtime/kv_history.hpp"

namespace modalkv {
namespace {

// What a number of histories came to: a test in which nothing happened proves nothing.
struct Tally {
  RuntimeCounters sum;
  int outputs = 0, failed_steps = 0, cuts = 0, exact_cuts = 0;

  void add(const History& history) {
    const RuntimeCounters& one = history.cache().counters();
    sum.streamed_bytes += one.streamed_bytes;
    sum.prefetched_bytes += one.prefetched_bytes;
    sum.wasted_prefetch_bytes += one.wasted_prefetch_bytes;
    sum.left_bytes += one.left_bytes;
    sum.arrived_bytes += one.arrived_bytes;
    sum.compressed_pages += one.compressed_pages;
    sum.verified_pages += one.verified_pages;
    sum.busy += one.busy;
    sum.no_space += one.no_space;
    sum.failed_groups += one.failed_groups;
    sum.timeouts += one.timeouts;
    sum.lost_tokens += one.lost_tokens;
    outputs += history.good_outputs();
    failed_steps += history.failed_steps();
    cuts += history.cuts();
    exact_cuts += history.exact_cuts();
  }
  void expect_everything_happened() const {
    EXPECT_GT(outputs, 100);
    EXPECT_GT(sum.prefetched_bytes, 0);
    EXPECT_GT(sum.streamed_bytes, sum.prefetched_bytes) << "prefetches are streamed too";
    EXPECT_GT(sum.prefetched_bytes, sum.wasted_prefetch_bytes);
    EXPECT_GT(sum.left_bytes, 0);
    EXPECT_GT(sum.arrived_bytes, 0);
    EXPECT_GT(sum.compressed_pages, 0);
    EXPECT_GT(sum.verified_pages, 0);
    EXPECT_GT(sum.busy, 0);
    EXPECT_GT(exact_cuts, cuts / 2);
  }
};

template <typename World>
void run(World& world, const HistoryOptions& options, Tally& tally) {
  SCOPED_TRACE(options.seed);
  History history(world.device, options);
  history.run();
  for (const Finding& finding : world.device.findings()) ADD_FAILURE() << finding.message;
  tally.add(history);
}

TEST(KvCache, RandomHistoriesOnRealThreads) {
  Tally tally;
  for (std::uint64_t seed = 1; seed <= 16 && !HasFailure(); ++seed) {
    Checked<Host> world;
    run(world, {.seed = seed}, tally);
  }
  tally.expect_everything_happened();
}

TEST(KvCache, RandomHistoriesInVirtualTime) {
  Tally tally;
  for (std::uint64_t seed = 1000; seed < 1060 && !HasFailure(); ++seed) {
    Checked<JitteredSim> world;
    run(world, {.seed = seed, .window = seed % 3 == 0 ? 50 : 0}, tally);
  }
  tally.expect_everything_happened();
}

struct Faulty {
  explicit Faulty(std::uint64_t seed)
      : faults(inner.device,
               {.seed = seed, .busy = 0.05, .fail = 0.01, .late = 0.05, .lost = 0.003}),
        device(faults) {}
  Sim inner;
  FaultDevice faults;
  CheckingDevice device;
};

TEST(KvCache, FaultsCostStepsButNeverGiveAWrongOutput) {
  Tally tally;
  for (std::uint64_t seed = 2000; seed < 2040 && !HasFailure(); ++seed) {
    Faulty world(seed);
    run(world, {.seed = seed, .faults = true}, tally);
  }
  tally.expect_everything_happened();
  EXPECT_GT(tally.failed_steps, 0);
  EXPECT_GT(tally.sum.failed_groups, 0);
  EXPECT_GT(tally.sum.timeouts, 0);
  EXPECT_GT(tally.sum.lost_tokens, 0);
}

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr std::uint64_t kNightlyHistories = 1'000;  // they take ten times as long
#else
constexpr std::uint64_t kNightlyHistories = 10'000;
#endif

TEST(KvCacheNightly, ManyHistories) {
  Tally tally;
  const auto seed_of = [](std::uint64_t i) { return 1'000'000 + i; };
  for (std::uint64_t i = 0; i < kNightlyHistories && !HasFailure(); ++i) {
    HistoryOptions options{.seed = seed_of(i), .window = i % 5 == 0 ? 50 : 0};
    if (i % 20 == 0) {
      Checked<Host> world;
      run(world, options, tally);
    } else if (i % 4 == 1) {
      Faulty world(options.seed);
      options.faults = true;
      run(world, options, tally);
    } else {
      Checked<JitteredSim> world;
      run(world, options, tally);
    }
  }
  tally.expect_everything_happened();
}

// A small engine: one sequence, whose image the placement puts on the host.
class Streaming {
 public:
  Streaming() {
    Placement placement;
    for (Shares& shares : placement.shares)
      shares[static_cast<std::size_t>(Action::streamed_low)] = 1;
    cache_.grow_host(0, 4 * kMiB);
    cache_.set_placement(placement);
    const Segment prompt[] = {{TokenClass::image, 128}, {TokenClass::text, 4}};
    sequence_ = *cache_.begin(prompt);
    std::fill_n(reinterpret_cast<std::uint16_t*>(engine_.data()), kRows * 64, to_fp16(0.5f));
    space_ = world_.device
                 .register_space(
                     {SpaceInfo::Kind::device, static_cast<Bytes>(engine_.size()), engine_.data()})
                 .space;
  }

  CheckingDevice& device() { return world_.device; }
  KvCache& cache() { return cache_; }
  SequenceId sequence() const { return sequence_; }
  std::vector<std::byte>& host_memory() { return host_; }

  Status append(Tokens tokens, int layer) {
    const Address rows{space_, 0, tokens * 2 * 32 * 2};
    const AppendRequest request{sequence_, tokens, rows, rows};
    return cache_.append({&request, 1}, layer);
  }
  Status append_everywhere(Tokens tokens) {
    for (int layer = 0; layer < 3; ++layer)
      if (const Status status = append(tokens, layer); status != Status::ok) return status;
    return Status::ok;
  }
  Attended attend(int layer) {
    const Address queries{space_, 0, 4 * 32 * 2}, outputs{space_, kRows * 128, 4 * 32 * 2};
    return cache_.attend(std::array{AttendRequest{sequence_, 1, queries, outputs}}, layer);
  }
  /// Everything that happens until nothing more does.
  std::vector<RuntimeEvent> events() {
    std::vector<RuntimeEvent> all;
    do {
      while (const auto event = cache_.poll(kMillisecond)) all.push_back(*event);
    } while (!cache_.settled());
    return all;
  }

 private:
  static constexpr Bytes kRows = 256;
  Checked<Host> world_;
  std::vector<std::byte> device_ = std::vector<std::byte>(static_cast<std::size_t>(4 * kMiB)),
                         host_ = device_, tables_ = device_, engine_ = device_;
  KvCache cache_{world_.device,
                 history_config({}),
                 {.device = device_, .hosts = {{host_}}, .tables = tables_}};
  SequenceId sequence_{};
  SpaceId space_{};
};

// Where the host holds the compressed image pages of a layer.
std::vector<std::span<std::byte>> image_pages(Streaming& engine, std::uint64_t layer) {
  const PageShape shape{64, 2, 32, both(int4_token_head())};
  std::vector<std::span<std::byte>> pages;
  for (Bytes at = 0; at + page_bytes(shape) <= 4 * kMiB; at += 64) {
    const std::span page(engine.host_memory().data() + at,
                         static_cast<std::size_t>(page_bytes(shape)));
    const PageTrailer trailer = read_trailer(page);
    if (trailer.tokens == 64 && trailer.content.words[2] == layer &&
        verify_page(page) == Status::ok)
      pages.push_back(page);
  }
  return pages;
}

TEST(KvCache, ASpoiledPageFailsTheStepAndNamesWhatToRecompute) {
  Streaming engine;
  ASSERT_EQ(engine.append_everywhere(132), Status::ok);
  EXPECT_TRUE(engine.events().empty());
  ASSERT_EQ(engine.cache().counters().left_bytes > 0, true) << engine.cache().describe();
  const auto pages = image_pages(engine, 2);
  ASSERT_EQ(pages.size(), 2u);
  pages[1][100] ^= std::byte{4};
  ASSERT_EQ(engine.attend(1).status, Status::ok);
  ASSERT_EQ(engine.events().at(0).status, Status::ok) << "another layer is well";
  const Attended spoiled_step = engine.attend(2);
  ASSERT_EQ(spoiled_step.status, Status::ok);
  const auto events = engine.events();
  ASSERT_EQ(events.size(), 2u);
  const bool lost_first = events[0].kind == RuntimeEvent::Kind::lost;
  const RuntimeEvent &lost = events[lost_first ? 0 : 1], &attended = events[lost_first ? 1 : 0];
  EXPECT_EQ(attended.status, Status::checksum);
  EXPECT_EQ(attended.step, spoiled_step.step);
  EXPECT_EQ(lost.kind, RuntimeEvent::Kind::lost);
  EXPECT_EQ(lost.status, Status::checksum);
  EXPECT_EQ(lost.layer, 2);
  EXPECT_EQ(lost.first_token, 64);
  EXPECT_EQ(engine.cache().counters().corrupt_pages, 1);
  EXPECT_EQ(engine.attend(2).status, Status::rejected) << "until it has been truncated";
  EXPECT_EQ(engine.cache().truncate(engine.sequence(), lost.first_token).kept, 64);
  ASSERT_EQ(engine.append_everywhere(68), Status::ok);
  EXPECT_TRUE(engine.events().empty());
  ASSERT_EQ(engine.attend(2).status, Status::ok);
  EXPECT_EQ(engine.events().at(0).status, Status::ok);
}

TEST(KvCache, SwappedPagesAreFoundThoughEachIsWhole) {
  Streaming engine;
  ASSERT_EQ(engine.append_everywhere(132), Status::ok);
  EXPECT_TRUE(engine.events().empty());
  const auto pages = image_pages(engine, 1);
  ASSERT_EQ(pages.size(), 2u);
  std::swap_ranges(pages[0].begin(), pages[0].end(), pages[1].begin());
  ASSERT_EQ(engine.attend(1).status, Status::ok);
  const auto events = engine.events();
  ASSERT_EQ(events.size(), 2u);
  for (const RuntimeEvent& event : events) {
    EXPECT_EQ(event.status, Status::checksum);
    if (event.kind == RuntimeEvent::Kind::lost) {
      EXPECT_EQ(event.first_token, 0);
    }
  }
  EXPECT_EQ(engine.cache().counters().corrupt_pages, 2);
}

// Bugs planted between the cache and the checker: each must be found by it.
class Careless final : public ForwardingDevice {
 public:
  enum class Bug : std::uint8_t { none, forgets_events, ends_early };
  Careless(Device& inner, Bug bug) : ForwardingDevice(inner), bug_(bug) {}

  RegisteredSpace register_space(const SpaceInfo& info) override {
    return inner_.register_space(info);
  }
  Submitted submit(QueueId queue, std::span<const Op> ops, std::span<const Ticket> after) override {
    const Submitted submitted =
        inner_.submit(queue, ops, bug_ == Bug::forgets_events ? std::span<const Ticket>{} : after);
    if (bug_ == Bug::ends_early && submitted.status == Status::ok)
      early_.push_back({submitted.ticket, Status::ok, now()});
    return submitted;
  }
  std::optional<Completion> next_completion(Nanos timeout_ns) override {
    if (bug_ != Bug::ends_early) return inner_.next_completion(timeout_ns);
    if (early_.empty()) return inner_.next_completion(0), std::nullopt;
    const Completion completion = early_.front();
    early_.pop_front();
    return completion;
  }

 private:
  Bug bug_;
  std::deque<Completion> early_;
};

std::vector<Finding> findings_with(Careless::Bug bug) {
  std::vector<Finding> findings;
  for (std::uint64_t seed = 1; seed <= 8 && findings.empty(); ++seed) {
    SimDevice sim(small_machine(), {.jitter = 3, .seed = seed});
    CheckingDevice checking(sim);
    Careless careless(checking, bug);
    testing::TestPartResultArray failures;  // outputs are wrong too
    {
      const testing::ScopedFakeTestPartResultReporter reporter(
          testing::ScopedFakeTestPartResultReporter::INTERCEPT_ONLY_CURRENT_THREAD, &failures);
      History history(careless, {.seed = seed, .actions = 25, .faults = true});
      history.run();
    }
    findings = checking.findings();
  }
  return findings;
}

TEST(KvCache, AForgottenEventIsFound) {
  EXPECT_TRUE(findings_with(Careless::Bug::none).empty());
  const auto findings = findings_with(Careless::Bug::forgets_events);
  ASSERT_FALSE(findings.empty());
  EXPECT_EQ(findings[0].kind, Finding::Kind::hazard);
}

TEST(KvCache, ASlotUsedAgainBeforeItsCopyHasEndedIsFound) {
  const auto findings = findings_with(Careless::Bug::ends_early);
  ASSERT_FALSE(findings.empty());
  EXPECT_EQ(findings[0].kind, Finding::Kind::hazard);
}

TEST(KvCache, RefusesWhatMakesNoSense) {
  Streaming engine;
  EXPECT_EQ(engine.attend(0).status, Status::rejected) << "nothing is there";
  EXPECT_EQ(engine.append(1, 3), Status::rejected);
  EXPECT_EQ(engine.append(1, -1), Status::rejected);
  EXPECT_EQ(engine.append(0, 0), Status::rejected);
  EXPECT_FALSE(engine.cache().begin(std::array{Segment{TokenClass::text, 0}}).has_value());
  ASSERT_EQ(engine.append(2, 0), Status::ok);
  EXPECT_EQ(engine.cache().pause(engine.sequence()), Status::rejected) << "in the middle of a step";
  EXPECT_EQ(engine.cache().fork(engine.sequence()).status, Status::rejected);
  EXPECT_EQ(engine.cache().truncate(engine.sequence(), -1).status, Status::rejected);
  ASSERT_EQ(engine.append(2, 1), Status::ok);
  ASSERT_EQ(engine.append(2, 2), Status::ok);
  ASSERT_EQ(engine.cache().pause(engine.sequence()), Status::ok);
  EXPECT_EQ(engine.append(1, 0), Status::rejected) << "paused";
  EXPECT_EQ(engine.attend(0).status, Status::rejected);
  ASSERT_EQ(engine.cache().release(engine.sequence()), Status::ok);
  EXPECT_EQ(engine.cache().resume(engine.sequence()), Status::rejected) << "gone";
  EXPECT_EQ(engine.append(1, 0), Status::rejected);
  engine.events();
  EXPECT_TRUE(engine.device().findings().empty());
}

TEST(KvCache, SaysWhatItsMemoryIsTooSmallFor) {
  Host world;
  std::vector<std::byte> small(static_cast<std::size_t>(64 * kKiB));
  try {
    KvCache cache(world.device, history_config({}),
                  {.device = small, .hosts = {{small}}, .tables = small});
    FAIL();
  } catch (const Error& error) {
    EXPECT_STREQ(error.what(), "KV cache: 65536 bytes are too few, the staging slots need 122880");
  }
}

}  // namespace
}  // namespace modalkv
