// Taking a step apart must leave no trace; how long anything took decides nothing.
#include "tools/bench/replayed_step.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

#include "kernels/number.hpp"
#include "modalkv/error.hpp"
#include "tools/bench/decode_engine.hpp"

namespace modalkv {
namespace {

constexpr double kLinkBytesPerSecond = 2e9;

DecodeShape small_shape() {
  return {.layers = 3, .batch = 2, .heads = 2, .tokens = 700, .format = both(int4_token_head())};
}

std::vector<std::uint16_t> outputs_of(DecodeEngine& engine) {
  engine.rewind();
  engine.step();
  return {engine.outputs().begin(), engine.outputs().end()};
}

TEST(ReplayedStep, LeavesTheKvOfTheRuntimeAsItWas) {
  DecodeEngine engine(small_shape(), {0.25, 0.75, 0}, kLinkBytesPerSecond);
  const std::vector<std::uint16_t> before = outputs_of(engine);
  ASSERT_TRUE(std::any_of(before.begin(), before.end(), [](auto element) { return element != 0; }));
  const std::vector<RecordedGroup> step = engine.record_step();
  ReplayedStep replayed(engine.device(), step);
  for (const int steps : {1, 4}) {
    const TimesApart times = replayed.run(step, steps);
    for (const auto& part : {times.copy_ms, times.compute_ms}) {
      EXPECT_GE(part.size(), static_cast<std::size_t>(steps));
      EXPECT_GT(*std::min_element(part.begin(), part.end()), 0);
    }
    EXPECT_EQ(outputs_of(engine), before);
  }
}

TEST(ReplayedStep, CopiesTakeTheTimeOfTheLink) {
  constexpr double link_bytes_per_s = 2e7;  // tens of milliseconds a step
  DecodeEngine engine(small_shape(), {0, 1, 0}, link_bytes_per_s);
  engine.step();
  const Bytes before = engine.counters().streamed_bytes;
  const std::vector<RecordedGroup> step = engine.record_step();
  const auto bytes = static_cast<double>(engine.counters().streamed_bytes - before);
  EXPECT_GT(bytes, 500e3);
  const TimesApart times = ReplayedStep(engine.device(), step).run(step, 4);
  double all_ms = 0;
  for (const double time_ms : times.copy_ms) all_ms += time_ms;
  // A paced queue may catch up on what it was late, so one step alone may be shorter.
  const double link_ms = bytes / link_bytes_per_s * 1e3;
  EXPECT_GE(all_ms + 20, link_ms * static_cast<double>(times.copy_ms.size()));
}

TEST(ReplayedStep, AStepThatCopiesNothingIsRefused) {
  DecodeEngine engine(small_shape(), {1, 0, 0}, kLinkBytesPerSecond);
  const std::vector<RecordedGroup> step = engine.record_step();
  EXPECT_THROW(ReplayedStep(engine.device(), step), Error);
}

TEST(DecodeEngine, AttendsToTheSameKvWhereverItIs) {
  DecodeEngine resident(small_shape(), {1, 0, 0}, kLinkBytesPerSecond);
  const std::vector<std::uint16_t> expected = outputs_of(resident);
  EXPECT_EQ(resident.counters().streamed_bytes, 0);
  DecodeEngine streamed(small_shape(), {0, 1, 0}, kLinkBytesPerSecond);
  DecodeEngine mixed(small_shape(), {0.3, 0.3, 0.4}, kLinkBytesPerSecond);
  for (DecodeEngine* engine : {&streamed, &mixed}) {
    const std::vector<std::uint16_t> found = outputs_of(*engine);
    ASSERT_EQ(found.size(), expected.size());
    for (std::size_t i = 0; i < found.size(); ++i)
      ASSERT_NEAR(from_fp16(found[i]), from_fp16(expected[i]), 2e-3) << i;
    EXPECT_GT(engine->counters().streamed_bytes, 0);
  }
}

}  // namespace
}  // namespace modalkv
