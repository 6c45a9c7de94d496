// The facade as an engine sees it.
#include "modalkv/runtime.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cmath>
#include <string>
#include <vector>

#include "kernels/number.hpp"
#include "scheduler/policies.hpp"
#include "tests/runtime/small_runtime.hpp"
#include "tests/scheduler/sample_machine.hpp"

namespace modalkv {
namespace {

RuntimeConfig small_config() {
  RuntimeConfig config = small_runtime_config(2);
  config.policy.keep = 0.1;
  return config;
}

constexpr Tokens kTokens = 200;  // of the prompt
constexpr Segment kPrompt[] = {
    {TokenClass::text, 8}, {TokenClass::image, 180}, {TokenClass::text, 12}};

// Rows that INT4 holds exactly, so that no placement changes the answer.
class Engine {
 public:
  explicit Engine(Runtime& runtime) : runtime_(runtime) {
    for (std::size_t i = 0; i < rows_.size(); ++i)
      rows_[i] = to_fp16(i % 64 < 2 ? (i % 64 == 0 ? -2.0f : 1.75f)
                                    : static_cast<float>(i * i / 7 % 16) / 4 - 2);
    runtime_.register_memory(std::as_writable_bytes(std::span(rows_)));
    runtime_.register_memory(std::as_writable_bytes(std::span(outputs_)));
    sequence_ = runtime_.begin(kPrompt).value().sequence;
  }

  SequenceId sequence() const { return sequence_; }

  void append(Tokens tokens) {
    const Address rows = runtime_.address(rows_.data(), tokens * 2 * 64 * 2);
    for (int layer = 0; layer < 2; ++layer) {
      Status status = Status::busy;
      for (int tries = 0; tries < 1000; ++tries) {
        const AppendRequest request{sequence_, tokens, rows, rows};
        status = runtime_.append({&request, 1}, layer);
        if (status != Status::busy) break;
        EXPECT_FALSE(runtime_.poll(kMillisecond).has_value());
      }
      ASSERT_EQ(status, Status::ok);
    }
  }
  /// One query over all that was appended.
  std::vector<float> attend(int layer) {
    const AttendRequest request{sequence_, 1, runtime_.address(rows_.data() + 640, 4 * 64 * 2),
                                runtime_.address(outputs_.data(), 4 * 64 * 2)};
    const Attended attended = runtime_.attend(std::span(&request, 1), layer);
    EXPECT_EQ(attended.status, Status::ok);
    EXPECT_EQ(runtime_.wait(attended.step, 10 * kSecond), Status::ok);
    std::vector<float> outputs;
    for (const std::uint16_t output : outputs_) outputs.push_back(from_fp16(output));
    return outputs;
  }
  void settle() {
    const auto is_settled = [&] {
      return runtime_.describe().find("in flight: 0, wishes: 0") != std::string::npos;
    };
    for (int i = 0; i < 2000 && !is_settled(); ++i)
      if (runtime_.poll(5 * kMillisecond)) FAIL() << "nothing was awaited";
    ASSERT_TRUE(is_settled()) << runtime_.describe();
  }

 private:
  Runtime& runtime_;
  std::vector<std::uint16_t> rows_ = std::vector<std::uint16_t>(kTokens * 2 * 64);
  std::array<std::uint16_t, 4 * 64> outputs_{};
  SequenceId sequence_{};
};

void expect_near(const std::vector<float>& a, const std::vector<float>& b) {
  ASSERT_EQ(a.size(), b.size());
  for (std::size_t i = 0; i < a.size(); ++i) ASSERT_NEAR(a[i], b[i], 1e-2f) << i;
}

// The machine with the model that the tests' sequences are of.
ModelGeometry small_model() {
  ModelGeometry model = sample_model();
  model.layers = 2, model.q_heads = 4, model.kv_heads = 2, model.head_dim = 64;
  return model;
}

TEST(Runtime, OnASmallDeviceTheAnswerIsTheSameBeforeAndAfterANewPlan) {
  Runtime large(small_config());
  Engine reference(large);
  for (Tokens chunk = 0; chunk < kTokens; chunk += 50) reference.append(50);
  const std::vector<float> expected = reference.attend(1);
  EXPECT_NE(expected[0], 0.0f);
  EXPECT_EQ(large.counters().compressed_pages, 0) << "there was room";
  const auto easy = large.replan(small_model(), sample_hardware());
  ASSERT_TRUE(easy.has_value());
  EXPECT_EQ(easy->layers[0][Action::resident_high].tokens, kTokens) << "do no harm";

  // 200 tokens take 204,800 bytes in 16 bits.
  RuntimeConfig config = small_config();
  config.staging_slot_bytes = 64 * kKiB;
  config.device_bytes = config.partials_bytes + (2 * 64 + 32 + 198) * kKiB;
  Runtime small(config);
  Engine engine(small);
  for (Tokens chunk = 0; chunk < kTokens; chunk += 50) engine.append(50);
  expect_near(engine.attend(1), expected);
  EXPECT_GT(small.counters().compressed_pages + small.counters().left_bytes, 0);
  const auto plan = small.replan(small_model(), sample_hardware());
  ASSERT_TRUE(plan.has_value());
  EXPECT_LT(plan->layers[0][Action::resident_high].tokens, kTokens);
  EXPECT_FALSE(plan->reason.empty());
  engine.settle();
  expect_near(engine.attend(1), expected);
}

TEST(Runtime, AfterAPauseTheAnswerIsTheSame) {
  Runtime runtime(small_config());
  Engine engine(runtime);
  engine.append(kTokens);
  const std::vector<float> before = engine.attend(0);
  ASSERT_EQ(runtime.pause(engine.sequence()), Status::ok);
  engine.settle();
  EXPECT_GT(runtime.counters().left_bytes, 0);
  ASSERT_EQ(runtime.resume(engine.sequence()), Status::ok);
  expect_near(engine.attend(0), before);
  engine.settle();
  EXPECT_GT(runtime.counters().arrived_bytes, 0);
  expect_near(engine.attend(0), before);
  EXPECT_NE(runtime.describe().find("200 tokens"), std::string::npos) << runtime.describe();
}

// Whatever a rank's pools have grown to by now.
TEST(Runtime, RanksOfAGroupMakeTheSamePlan) {
  RuntimeConfig config = small_config();
  config.kv_heads = 1, config.query_heads = 2;
  config.tensor_parallel_ranks = 2;
  config.device_bytes = config.partials_bytes + 2 * config.staging_slot_bytes + 200 * kKiB;
  std::vector<std::string> plans;
  for (int rank = 0; rank < 2; ++rank) {
    Runtime runtime(config);
    for (int i = 0; i < 2; ++i) ASSERT_TRUE(runtime.begin(kPrompt).has_value());
    const auto plan = runtime.replan(small_model(), sample_hardware());
    ASSERT_TRUE(plan.has_value());
    plans.push_back(plan->reason + std::to_string(plan->layers[0][Action::resident_high].tokens) +
                    std::to_string(plan->step_ns));
  }
  EXPECT_EQ(plans[0], plans[1]);
  const ModelGeometry share = rank_share(small_model(), 2);
  EXPECT_EQ(share.kv_heads, 1);
  EXPECT_EQ(share.q_heads, 2);
}

TEST(Runtime, WaitsForTheEnginesEvents) {
  Runtime runtime(small_config());
  std::vector<std::uint16_t> rows(8 * 2 * 64), outputs(4 * 64);
  runtime.register_memory(std::as_writable_bytes(std::span(rows)));
  runtime.register_memory(std::as_writable_bytes(std::span(outputs)));
  const SequenceId sequence = runtime.begin(kPrompt).value().sequence;
  const Address all = runtime.address(rows.data(), 8 * 2 * 64 * 2);
  const AppendRequest append{sequence, 8, all, all};
  std::atomic<std::uint64_t> written{0}, done{0};
  const EngineEvent nowhere{};
  EXPECT_EQ(runtime.append({&append, 1}, 0, {&nowhere, 1}), Status::rejected);
  const EngineEvent when_written{&written, 1};
  ASSERT_EQ(runtime.append({&append, 1}, 0, {&when_written, 1}), Status::ok);
  const AttendRequest attend{sequence, 1, runtime.address(rows.data(), 4 * 64 * 2),
                             runtime.address(outputs.data(), 4 * 64 * 2)};
  const Attended attended =
      runtime.attend({&attend, 1}, 0, {&when_written, 1}, EngineEvent{&done, 9});
  ASSERT_EQ(attended.status, Status::ok);
  EXPECT_EQ(runtime.wait(attended.step, 10 * kMillisecond), Status::timeout);
  written = 1;
  EXPECT_EQ(runtime.wait(attended.step, 10 * kSecond), Status::ok);
  EXPECT_EQ(done, 9u);
}

TEST(Runtime, UsesTheEnginesDeviceMemory) {
  RuntimeConfig config = small_config();
  std::vector<std::byte> device(static_cast<std::size_t>(config.device_bytes), std::byte{0x5a});
  config.device_memory = device;
  Runtime runtime(config);
  Engine engine(runtime);
  engine.append(kTokens);
  EXPECT_NE(engine.attend(0)[0], 0.0f);
  EXPECT_NE(std::count(device.begin(), device.end(), std::byte{0x5a}),
            static_cast<std::ptrdiff_t>(device.size()));
}

TEST(Runtime, MovesWithAllThatItHolds) {
  Runtime first(small_config());
  const SequenceId sequence = first.begin(kPrompt).value().sequence;
  Runtime second = std::move(first);
  EXPECT_EQ(second.release(sequence), Status::ok);
}

TEST(Runtime, SaysInALineWhatCannotBe) {
  const auto complaint = [](auto change) -> std::string {
    RuntimeConfig config = small_config();
    change(config);
    try {
      Runtime runtime(config);
    } catch (const Error& error) {
      return error.what();
    }
    return "";
  };
  const auto expect = [](const std::string& found, const char* part) {
    EXPECT_NE(found.find(part), std::string::npos) << found;
    EXPECT_EQ(found.find('\n'), std::string::npos) << found;
  };
  expect(complaint([](auto& config) { config.query_heads = 3; }), "multiple of its KV heads");
  expect(complaint([](auto& config) { config.head_dim = 50; }), "no pages of this many tokens");
  expect(complaint([](auto& config) { config.visual_page_tokens = 48; }), "multiple of 64");
  expect(complaint([](auto& config) { config.staging_slot_bytes = 64; }), "staging slot");
  expect(complaint([](auto& config) { config.device_bytes = kMiB; }), "too few");
  expect(complaint([](auto& config) { config.gpu = 1'000; }), "GPU: ");
  expect(complaint([](auto& config) { config.host_bytes = 0; }), "");
  expect(complaint([](auto& config) { config.policy.high = both(int8_token_head()); }), "16 bits");
  Runtime runtime(small_config());
  std::vector<std::byte> memory(64);
  EXPECT_THROW(static_cast<void>(runtime.address(memory.data(), 8)), Error);
  runtime.register_memory(memory);
  EXPECT_EQ(runtime.address(memory.data() + 8, 8).offset, 8);
  EXPECT_THROW(static_cast<void>(runtime.address(memory.data() + 60, 8)), Error);
}

}  // namespace
}  // namespace modalkv
