// Which visual tokens stay in high precision, held against attention in double precision; and what
// becomes of them when a sequence is forked, cut, paused, or memory is short.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cmath>
#include <functional>
#include <random>

#include "kernels/number.hpp"
#include "offload/forwarding_device.hpp"
#include "runtime/kv_cache.hpp"
#include "scheduler/selection.hpp"
#include "tests/offload/devices.hpp"
#include "tests/runtime/small_cache.hpp"
#include "tests/runtime/test_device.hpp"

namespace modalkv {
namespace {

constexpr int kLayers = 3, kQueryHeads = 4, kKvHeads = 2, kHeadDim = 32;
constexpr Tokens kMostTokens = 768;

RuntimeConfig config_of(double keep = 0.25) {
  RuntimeConfig config = small_cache_config();
  config.policy.keep = keep;
  config.policy.visual_low = both(int2_grouped(32));
  config.policy.window_tokens = 8;
  config.policy.high_first_layers = 1;
  config.partials_bytes = 8 * kMiB;
  return config;
}

// Knows which group scores, and whose end the engine is told. Where the bug is planted, each
// promoted token is attended to among the others as well.
class ShowsWhatIsHidden final : public ForwardingDevice {
 public:
  explicit ShowsWhatIsHidden(Device& inner) : ForwardingDevice(inner) {}
  std::byte* tables = nullptr;  // not null: the bug is there
  Ticket scored{}, exported{};  // the latest

  Submitted submit(QueueId queue, std::span<const Op> ops, std::span<const Ticket> after) override {
    for (const Op& op : ops)
      if (const auto* attend = std::get_if<Attend>(&op);
          tables != nullptr && attend != nullptr && attend->hidden.bytes > 0)
        *reinterpret_cast<std::uint64_t*>(tables + attend->hidden.offset) &= 1;
    const Submitted submitted = inner_.submit(queue, ops, after);
    if (!ops.empty() && std::holds_alternative<Score>(ops.front())) scored = submitted.ticket;
    return submitted;
  }
  Status export_event(Ticket ticket, EngineEvent event) override {
    exported = ticket;
    return inner_.export_event(ticket, event);
  }
};

// An engine over a cache: keys, values and queries of a token are the same whoever asks for it.
class Engine {
 public:
  explicit Engine(RuntimeConfig config = config_of(), Bytes device_bytes = 12 * kMiB,
                  std::uint64_t seed = 1, FaultPlan faults = {})
      : config_(std::move(config)),
        device_memory_(static_cast<std::size_t>(device_bytes)),
        host_(static_cast<std::size_t>(4 * kMiB)),
        tables_(static_cast<std::size_t>(4 * kMiB)),
        rows_(static_cast<std::size_t>(kOutputs + kLayers * kMostTokens * kQueryRow)),
        faults_(*world_, std::move(faults)),
        cache_(device_, config_,
               {.device = device_memory_, .hosts = {{host_, 0}}, .tables = tables_}) {
    cache_.grow_host(0, static_cast<Bytes>(host_.size()));
    cache_.set_placement(all(Action::resident_high, Action::resident_low));
    space_ = device_
                 .register_space(
                     {SpaceInfo::Kind::device, static_cast<Bytes>(rows_.size()), rows_.data()})
                 .space;
    std::mt19937_64 random(seed);
    std::normal_distribution<float> normal;
    for (std::size_t i = 0; i < static_cast<std::size_t>(kOutputs) / 2; ++i)
      elements()[i] = to_fp16(normal(random));
  }

  KvCache& cache() { return cache_; }
  CheckingDevice& checker() { return checker_; }
  const ShowsWhatIsHidden& device() const { return device_; }
  FaultCounts injected() const { return faults_.injected(); }
  const RuntimeConfig& config() const { return config_; }
  void plant_bug() { device_.tables = tables_.data(); }
  /// Makes all queries of a layer look for some tokens' keys.
  void draw_attention_to(std::span<const Tokens> tokens) {
    for (int layer = 0; layer < kLayers; ++layer)
      for (const Tokens token : tokens)
        for (int d = 0; d < kHeadDim * kKvHeads; ++d)
          elements()[kv(layer, false, token) + d] = to_fp16(d % kHeadDim < 8 ? 3.0f : 0.0f);
    for (int layer = 0; layer < kLayers; ++layer)
      for (Tokens token = 0; token < kMostTokens; ++token)
        for (int d = 0; d < kHeadDim * kQueryHeads; ++d)
          if (d % kHeadDim < 8) elements()[query(layer, token) + d] = to_fp16(1.5f);
  }

  SequenceId begin(std::vector<Segment> prompt) { return cache_.begin(prompt)->sequence; }

  /// Appends the next tokens in all layers and attends with them.
  Status step(SequenceId sequence, Tokens tokens, bool attends = true,
              const std::function<void(int layer)>& attended = {}) {
    for (int layer = 0; layer < kLayers; ++layer) {
      const Tokens first = cache_.tokens(sequence, layer);
      const AppendRequest rows{sequence, tokens, address(kv(layer, false, first), tokens * kKvRow),
                               address(kv(layer, true, first), tokens * kKvRow)};
      Status status = patiently([&] { return cache_.append({&rows, 1}, layer); });
      if (status != Status::ok) return status;
      if (!attends) continue;
      status = attend(sequence, layer, tokens);
      if (status != Status::ok) return status;
      if (attended) attended(layer);
    }
    return Status::ok;
  }
  /// The last `tokens` tokens' queries.
  Status attend(SequenceId sequence, int layer, Tokens tokens = 1) {
    const Tokens first = cache_.tokens(sequence, layer) - tokens;
    const AttendRequest request{sequence,
                                tokens,
                                address(query(layer, first), tokens * kQueryRow),
                                address(output(layer, first), tokens * kQueryRow),
                                {}};
    Attended attended;
    const Status status = patiently([&] {
      attended = cache_.attend({&request, 1}, layer, {}, {&attended_, 1});
      return attended.status;
    });
    return status == Status::ok ? cache_.wait(attended.step, 10 * kSecond) : status;
  }
  void settle() {
    for (int i = 0; i < 5000; ++i) {
      while (cache_.poll(kMillisecond)) {
      }
      if (cache_.settled()) return;
    }
    FAIL() << "it never comes to rest\n" << cache_.describe();
  }

  /// Probabilities that a head of a token's query gives to the tokens up to it.
  std::vector<double> probabilities(int layer, Tokens token, int head) {
    std::vector<double> all;
    double sum = 0;
    const int kv_head = head / (kQueryHeads / kKvHeads);
    for (Tokens t = 0; t <= token; ++t) {
      double logit = 0;
      for (int d = 0; d < kHeadDim; ++d)
        logit += double{number(query(layer, token) + head * kHeadDim + d)} *
                 number(kv(layer, false, t) + kv_head * kHeadDim + d);
      all.push_back(std::exp(logit / std::sqrt(kHeadDim)));
      sum += all.back();
    }
    for (double& one : all) one /= sum;
    return all;
  }
  /// The relative error of the last output of a token at a layer.
  double error(int layer, Tokens token) {
    double error = 0, size = 0;
    for (int head = 0; head < kQueryHeads; ++head) {
      const std::vector<double> weights = probabilities(layer, token, head);
      for (int d = 0; d < kHeadDim; ++d) {
        double value = 0;
        for (Tokens t = 0; t <= token; ++t)
          value += weights[static_cast<std::size_t>(t)] *
                   number(kv(layer, true, t) + head / 2 * kHeadDim + d);
        const double found = number(output(layer, token) + head * kHeadDim + d);
        error += (found - value) * (found - value);
        size += value * value;
      }
    }
    return std::sqrt(error / size);
  }

 private:
  static constexpr Bytes kKvRow = kKvHeads * kHeadDim * 2, kQueryRow = kQueryHeads * kHeadDim * 2,
                         kLayerBytes = kMostTokens * (2 * kKvRow + kQueryRow),
                         kOutputs = kLayers * kLayerBytes;

  // Where a token's rows begin, in elements.
  static Bytes kv(int layer, bool values, Tokens token) {
    return (layer * kLayerBytes + ((values ? kMostTokens : 0) + token) * kKvRow) / 2;
  }
  static Bytes query(int layer, Tokens token) {
    return (layer * kLayerBytes + 2 * kMostTokens * kKvRow + token * kQueryRow) / 2;
  }
  static Bytes output(int layer, Tokens token) {
    return (kOutputs + (layer * kMostTokens + token) * kQueryRow) / 2;
  }
  Address address(Bytes element, Bytes bytes) const { return {space_, element * 2, bytes}; }
  std::uint16_t* elements() { return reinterpret_cast<std::uint16_t*>(rows_.data()); }
  float number(Bytes element) { return from_fp16(elements()[element]); }

  template <typename Call>
  Status patiently(Call call) {
    Status status = call();
    for (int i = 0; status == Status::busy && i < 2000; ++i) {
      [[maybe_unused]] const auto event = cache_.poll(kMillisecond);
      status = call();
    }
    return status;
  }

  RuntimeConfig config_;
  // They outlive the device, which may still be at work when the test ends.
  std::vector<std::byte> device_memory_, host_, tables_, rows_;
  TestDevice world_;
  FaultDevice faults_;
  CheckingDevice checker_{faults_};
  ShowsWhatIsHidden device_{checker_};
  std::atomic<std::uint64_t> attended_{0};
  KvCache cache_;
  SpaceId space_{};
};

const std::vector<Segment> kPrompt{{TokenClass::text, 10},
                                   {TokenClass::image, 200},
                                   {TokenClass::text, 6},
                                   {TokenClass::image, 128},
                                   {TokenClass::text, 40}};
constexpr Tokens kPromptTokens = 384, kProbesBegin = 344;

// What the policy chooses by attention in double precision, beside the first tokens of images.
std::vector<Tokens> expected(Engine& engine, int layer, const std::vector<Segment>& prompt,
                             Tokens probes_begin, Tokens prompt_tokens) {
  std::vector<double> mass(static_cast<std::size_t>(prompt_tokens));
  for (Tokens probe = probes_begin; probe < prompt_tokens; ++probe)
    for (int head = 0; head < kQueryHeads; ++head) {
      const std::vector<double> seen = engine.probabilities(layer, probe, head);
      for (std::size_t t = 0; t < seen.size(); ++t) mass[t] += seen[t];
    }
  std::vector<float> scores;
  std::vector<Tokens> visual, chosen;
  Tokens token = 0;
  for (const Segment& segment : prompt)
    for (Tokens i = 0; i < segment.tokens; ++i, ++token)
      if (is_visual(segment.token_class)) {
        visual.push_back(i == 0 ? -1 : token);
        scores.push_back(static_cast<float>(mass[static_cast<std::size_t>(token)]));
      }
  const auto permissions = select_tokens(engine.config().policy, prompt, scores);
  for (const Tokens t : visual)
    if (t >= 0 && permissions[static_cast<std::size_t>(t)] == Permission::high_only)
      chosen.push_back(t);
  return chosen;
}

std::vector<Tokens> promoted(Engine& engine, SequenceId sequence, int layer) {
  const auto tokens = engine.cache().promoted(sequence, layer);
  return {tokens.begin(), tokens.end()};
}

TEST(KvCacheSelection, KeepsWhatTheTextAttendsToMost) {
  for (const std::uint64_t seed : {1, 2})
    for (const auto& chunks : {std::vector<Tokens>{384}, {100, 200, 60, 24}, {344, 1, 39}}) {
      Engine engine(config_of(), 12 * kMiB, seed);
      const SequenceId sequence = engine.begin(kPrompt);
      for (const Tokens chunk : chunks) ASSERT_EQ(engine.step(sequence, chunk), Status::ok);
      engine.settle();
      EXPECT_TRUE(promoted(engine, sequence, 0).empty()) << "held high throughout";
      for (const int layer : {1, 2}) {
        const auto best = expected(engine, layer, kPrompt, kProbesBegin, kPromptTokens);
        EXPECT_EQ(promoted(engine, sequence, layer), best) << "seed " << seed;
        // A quarter of the prompt is the budget: its text and the first tokens of images fill some.
        EXPECT_EQ(best.size(), 96u - 56u - 2u);
      }
      EXPECT_NE(promoted(engine, sequence, 1), promoted(engine, sequence, 2));
      const RuntimeCounters& counters = engine.cache().counters();
      EXPECT_EQ(counters.promoted_tokens, 2 * 38);
      EXPECT_EQ(counters.unscored_chunks, 0);
      EXPECT_EQ(counters.compressed_pages, 2 * (4 + 2)) << engine.cache().describe();
      EXPECT_TRUE(engine.checker().findings().empty());
    }
}

// The engine may write its next queries over them as soon as it is told.
TEST(KvCacheSelection, AStepEndsBehindAllThatReadsItsQueries) {
  Engine engine;
  const SequenceId sequence = engine.begin(kPrompt);
  int scoring_layers = 0;
  Ticket before{};
  const auto attended = [&](int) {
    const ShowsWhatIsHidden& device = engine.device();
    if (device.scored != before) {
      ++scoring_layers;
      EXPECT_EQ(device.exported, device.scored);
    }
    before = device.scored;
  };
  ASSERT_EQ(engine.step(sequence, kPromptTokens, true, attended), Status::ok);
  EXPECT_EQ(scoring_layers, kLayers - 1) << "the first is held high";
  ASSERT_EQ(engine.step(sequence, 1, true, attended), Status::ok);
  EXPECT_EQ(scoring_layers, kLayers - 1);
}

TEST(KvCacheSelection, NeverKeepsMoreThanTheBudget) {
  for (const double keep : {0.0, 0.1, 0.15, 0.16, 0.2, 0.5, 0.99}) {
    Engine engine(config_of(keep));
    const SequenceId sequence = engine.begin(kPrompt);
    ASSERT_EQ(engine.step(sequence, kPromptTokens), Status::ok);
    engine.settle();
    const Tokens budget = high_precision_budget(engine.config().policy, kPromptTokens);
    for (const int layer : {1, 2})
      EXPECT_EQ(static_cast<Tokens>(promoted(engine, sequence, layer).size()),
                std::max<Tokens>(budget - 56 - 2, 0))
          << keep;
  }
}

// Errors of the next tokens' outputs where few image tokens matter.
double mean_error(double keep, const std::function<void(Engine&, SequenceId&)>& between = {},
                  Placement placement = all(Action::resident_high, Action::resident_low)) {
  Engine engine(config_of(keep));
  engine.cache().set_placement(placement);
  engine.draw_attention_to(std::array<Tokens, 6>{20, 77, 140, 220, 300, 343});
  SequenceId sequence = engine.begin(kPrompt);
  EXPECT_EQ(engine.step(sequence, 250), Status::ok);
  EXPECT_EQ(engine.step(sequence, kPromptTokens - 250), Status::ok);
  engine.settle();
  if (between) between(engine, sequence);
  double sum = 0;
  for (Tokens token = engine.cache().tokens(sequence, 0), end = token + 4; token < end; ++token) {
    EXPECT_EQ(engine.step(sequence, 1), Status::ok);
    for (const int layer : {1, 2}) sum += engine.error(layer, token) / 8;
  }
  engine.settle();
  EXPECT_TRUE(engine.checker().findings().empty());
  return sum;
}

TEST(KvCacheSelection, IsMoreExactWhereFewTokensMatter) {
  const double without = mean_error(0.0), with = mean_error(0.25);
  RecordProperty("error_without", std::to_string(without));
  RecordProperty("error_with", std::to_string(with));
  EXPECT_LT(with, without / 4);
}

TEST(KvCacheSelection, ATokenThatIsNotHiddenAmongTheOthersIsNoticed) {
  const double wrong = mean_error(0.25, [](Engine& engine, SequenceId&) { engine.plant_bug(); });
  EXPECT_GT(wrong, 4 * mean_error(0.25));
}

TEST(KvCacheSelection, IsKeptWhereverItsPagesAre) {
  const double resident = mean_error(0.25);
  for (const Action high : {Action::streamed_high, Action::cpu_high})
    for (const Action low : {Action::streamed_low, Action::cpu_low})
      EXPECT_NEAR(mean_error(0.25, {}, all(high, low)), resident, 0.2 * resident);
}

TEST(KvCacheSelection, IsKeptByForksAndThroughPauses) {
  const double resident = mean_error(0.25);
  const auto pause = [](Engine& engine, SequenceId& sequence) {
    ASSERT_EQ(engine.cache().pause(sequence), Status::ok);
    engine.settle();
    EXPECT_GT(engine.cache().counters().left_bytes, 0);
    ASSERT_EQ(engine.cache().resume(sequence), Status::ok);
  };
  const auto fork = [](Engine& engine, SequenceId& sequence) {
    const Forked forked = engine.cache().fork(sequence);
    ASSERT_EQ(forked.status, Status::ok);
    for (const int layer : {1, 2})
      EXPECT_EQ(promoted(engine, sequence, layer), promoted(engine, forked.sequence, layer));
    ASSERT_EQ(engine.cache().release(sequence), Status::ok);
    sequence = forked.sequence;
  };
  const auto cut_behind = [](Engine& engine, SequenceId& sequence) {
    ASSERT_EQ(engine.step(sequence, 3), Status::ok);
    EXPECT_EQ(engine.cache().truncate(sequence, kPromptTokens).kept, kPromptTokens);
    EXPECT_FALSE(promoted(engine, sequence, 1).empty());
  };
  for (const auto& between : {std::function(pause), std::function(fork), std::function(cut_behind)})
    EXPECT_NEAR(mean_error(0.25, between), resident, 0.2 * resident);
}

TEST(KvCacheSelection, IsDroppedWithTheEndOfThePromptAndMadeAnew) {
  Engine engine;
  const SequenceId sequence = engine.begin(kPrompt);
  ASSERT_EQ(engine.step(sequence, kPromptTokens), Status::ok);
  engine.settle();
  ASSERT_FALSE(promoted(engine, sequence, 1).empty());
  EXPECT_EQ(engine.cache().truncate(sequence, 370).kept, 370);
  EXPECT_TRUE(promoted(engine, sequence, 1).empty());
  ASSERT_EQ(engine.step(sequence, 14), Status::ok);
  engine.settle();
  EXPECT_TRUE(promoted(engine, sequence, 1).empty()) << "what is compressed stays so";
  EXPECT_EQ(engine.cache().counters().unselected_for_memory, 1);
  Engine plain(config_of(0.0));
  const SequenceId other = plain.begin(kPrompt);
  ASSERT_EQ(plain.step(other, 370), Status::ok);
  plain.settle();
  ASSERT_EQ(plain.step(other, 14), Status::ok);
  for (const int layer : {0, 1, 2})
    EXPECT_NEAR(engine.error(layer, kPromptTokens - 1), plain.error(layer, kPromptTokens - 1), 1e-3)
        << "each token is there once";
  // From the beginning, all is as it was.
  EXPECT_EQ(engine.cache().truncate(sequence, 0).kept, 0);
  ASSERT_EQ(engine.step(sequence, kPromptTokens), Status::ok);
  engine.settle();
  for (const int layer : {1, 2})
    EXPECT_EQ(promoted(engine, sequence, layer),
              expected(engine, layer, kPrompt, kProbesBegin, kPromptTokens));
}

TEST(KvCacheSelection, IsGivenUpWithoutProbes) {
  Engine engine;
  const SequenceId sequence = engine.begin(kPrompt);
  ASSERT_EQ(engine.step(sequence, kPromptTokens, false), Status::ok);
  engine.settle();
  EXPECT_EQ(engine.cache().counters().compressed_pages, 0) << "it may still come";
  ASSERT_EQ(engine.step(sequence, 1), Status::ok);
  engine.settle();
  EXPECT_EQ(engine.cache().counters().unselected_for_probes, 1);
  EXPECT_EQ(engine.cache().counters().compressed_pages, 12);
  EXPECT_TRUE(promoted(engine, sequence, 1).empty());
}

// Of an image that the device cannot hold in 16 bits, what is compressed early is not promoted.
TEST(KvCacheSelection, GivesWayToMemory) {
  RuntimeConfig config = config_of(0.5);
  config.partials_bytes = kMiB;
  Engine engine(config, 2 * kMiB);
  std::vector<SequenceId> sequences;
  for (int i = 0; i < 5; ++i) {
    sequences.push_back(engine.begin(kPrompt));
    for (const Tokens chunk : {100, 100, 100, 84})
      ASSERT_EQ(engine.step(sequences.back(), chunk), Status::ok) << engine.cache().describe();
  }
  engine.settle();
  for (const SequenceId sequence : sequences) ASSERT_EQ(engine.step(sequence, 1), Status::ok);
  engine.settle();
  const RuntimeCounters& counters = engine.cache().counters();
  std::int64_t promoting = 0;
  for (const SequenceId sequence : sequences) {
    const std::size_t here = promoted(engine, sequence, 1).size();
    EXPECT_LE(here, 192u - 56u - 2u);
    EXPECT_EQ(here, promoted(engine, sequence, 2).size());
    promoting += here > 0 ? 1 : 0;
  }
  EXPECT_EQ(promoting + counters.unselected_for_memory, 5) << engine.cache().describe();
  EXPECT_LT(counters.promoted_tokens, 5 * 2 * (192 - 56 - 2));
  EXPECT_TRUE(engine.checker().findings().empty());
}

TEST(KvCacheSelection, GoesOnUnscoredWhereThereIsNoRoomForScores) {
  RuntimeConfig config = config_of();
  // For partial results over text, over images and over both, and not much more.
  config.partials_bytes = 3 * partial_bytes(kPromptTokens * kQueryHeads, kHeadDim) + 64;
  Engine engine(config);
  const SequenceId sequence = engine.begin(kPrompt);
  ASSERT_EQ(engine.step(sequence, kPromptTokens), Status::ok);
  engine.settle();
  const RuntimeCounters& counters = engine.cache().counters();
  EXPECT_EQ(counters.unscored_chunks, 2);
  EXPECT_EQ(counters.unselected_for_probes, 1);
  EXPECT_EQ(counters.promoted_tokens, 0);
  EXPECT_EQ(counters.compressed_pages, 12);
}

// Copies of the chosen tokens, whose rows are decoded on the way.
bool promotes(std::span<const Op> ops) {
  const auto any = [&]<typename Kind>(Kind) {
    return std::any_of(ops.begin(), ops.end(),
                       [](const Op& op) { return std::holds_alternative<Kind>(op); });
  };
  return any(Decode{}) && any(Append{});
}

struct PromotionFault {
  std::string_view name;
  FaultPlan plan;
  bool is_harmless;
};

void PrintTo(const PromotionFault& fault, std::ostream* out) {
  *out << fault.name;
}

class PromotionFaults : public testing::TestWithParam<PromotionFault> {};

TEST_P(PromotionFaults, LeaveAllTokensCompressedAtWorst) {
  FaultPlan plan = GetParam().plan;
  plan.seed = 1;
  plan.strikes = [](QueueId, std::span<const Op> ops) { return promotes(ops); };
  RuntimeConfig config = config_of();
  config.overdue_ns = kSecond;
  Engine engine(config, 12 * kMiB, 1, plan), plain(config_of(0.0));
  const SequenceId sequence = engine.begin(kPrompt), other = plain.begin(kPrompt);
  ASSERT_EQ(engine.step(sequence, kPromptTokens), Status::ok);
  ASSERT_EQ(plain.step(other, kPromptTokens), Status::ok);
  engine.settle();
  plain.settle();
  const RuntimeCounters& counters = engine.cache().counters();
  const FaultCounts injected = engine.injected();
  EXPECT_GT(injected.busy + injected.late + injected.fail + injected.lost, 0u);
  EXPECT_EQ(counters.unselected_for_faults, GetParam().is_harmless ? 0 : 1);
  EXPECT_EQ(counters.failed_groups > 0, !GetParam().is_harmless);
  EXPECT_EQ(counters.lost_tokens, 0) << "they are copies";
  for (const int layer : {1, 2})
    EXPECT_EQ(promoted(engine, sequence, layer),
              GetParam().is_harmless ? expected(engine, layer, kPrompt, kProbesBegin, kPromptTokens)
                                     : std::vector<Tokens>{});
  ASSERT_EQ(engine.step(sequence, 1), Status::ok);
  ASSERT_EQ(plain.step(other, 1), Status::ok);
  for (const int layer : {1, 2}) {
    const double compressed = plain.error(layer, kPromptTokens);
    EXPECT_LE(engine.error(layer, kPromptTokens), compressed + 1e-3) << "each token is there once";
  }
  EXPECT_TRUE(engine.checker().findings().empty());
}

INSTANTIATE_TEST_SUITE_P(OfEachKind, PromotionFaults,
                         testing::Values(PromotionFault{"IsRefused", {.busy = 0.8}, true},
                                         PromotionFault{"EndsLate", {.late = 1}, true},
                                         PromotionFault{"Fails", {.fail = 1}, false},
                                         PromotionFault{"IsNeverTold", {.lost = 1}, false}),
                         [](const auto& test) { return testing::PrintToString(test.param); });

}  // namespace
}  // namespace modalkv
