#include "scheduler/batcher.hpp"

#include <gtest/gtest.h>

#include <map>
#include <random>
#include <string>
#include <vector>

namespace modalkv {
namespace {

Sequence request(std::uint32_t number, Tokens prompt, Tokens output) {
  Sequence sequence;
  sequence.request = number;
  sequence.prompt = prompt;
  sequence.output = output;
  return sequence;
}

void admit_all(Batcher& batcher) {
  while (batcher.candidate()) batcher.admit(0);
}

std::vector<Tokens> chunks(const Batcher& batcher) {
  std::vector<Tokens> result;
  for (const Sequence& sequence : batcher.running()) result.push_back(sequence.chunk);
  return result;
}

using Chunks = std::vector<Tokens>;

TEST(Batcher, APromptIsComputedInChunksThenATokenAStep) {
  Batcher batcher({.max_sequences = 4, .max_step_tokens = 100});
  batcher.enqueue(request(0, 250, 3));
  std::vector<Tokens> computed, produced;
  for (Nanos step = 1; !batcher.idle(); ++step) {
    batcher.begin_step();
    admit_all(batcher);
    computed.push_back(batcher.running()[0].chunk);
    batcher.end_step(step);
    produced.push_back(batcher.running()[0].produced);
    EXPECT_EQ(batcher.running()[0].last_token_ns, step < 3 ? 0 : step);
    batcher.remove_finished();
  }
  EXPECT_EQ(computed, (Chunks{100, 100, 50, 1, 1}));
  EXPECT_EQ(produced, (Chunks{0, 0, 1, 2, 3})) << "the last chunk gives the first token";
}

TEST(Batcher, DecodingComesFirstThenOlderPrompts) {
  Batcher batcher({.max_sequences = 4, .max_step_tokens = 100});
  for (const auto& [number, prompt] : {std::pair{0u, 150}, {1u, 20}, {2u, 90}})
    batcher.enqueue(request(number, prompt, 10));
  batcher.begin_step();
  admit_all(batcher);
  EXPECT_EQ(chunks(batcher), (Chunks{100})) << "no tokens left for others";
  batcher.end_step(1);
  batcher.begin_step();
  admit_all(batcher);
  EXPECT_EQ(chunks(batcher), (Chunks{50, 20, 30}));
  batcher.end_step(2);
  batcher.begin_step();
  EXPECT_EQ(chunks(batcher), (Chunks{1, 1, 60}));
  EXPECT_EQ(batcher.waiting(), 0);
}

TEST(Batcher, DecodingStarvesPromptsWhereTheBudgetIsSmall) {
  Batcher batcher({.max_sequences = 4, .max_step_tokens = 2});
  for (std::uint32_t number = 0; number < 3; ++number) batcher.enqueue(request(number, 1, 10));
  batcher.begin_step();
  admit_all(batcher);
  EXPECT_EQ(chunks(batcher), (Chunks{1, 1}));
  batcher.end_step(1);
  batcher.begin_step();
  EXPECT_EQ(batcher.candidate(), nullptr) << "every token is taken";
  EXPECT_EQ(chunks(batcher), (Chunks{1, 1}));
}

TEST(Batcher, NoMoreSequencesThanAllowed) {
  Batcher batcher({.max_sequences = 2, .max_step_tokens = 1000});
  for (std::uint32_t number = 0; number < 3; ++number) batcher.enqueue(request(number, 10, 1));
  batcher.begin_step();
  admit_all(batcher);
  EXPECT_EQ(batcher.running().size(), 2u);
  EXPECT_EQ(batcher.waiting(), 1);
  batcher.end_step(1);
  batcher.remove_finished();
  EXPECT_TRUE(batcher.running().empty());
  EXPECT_FALSE(batcher.idle());
}

TEST(Batcher, ReusedTokensAreNotComputed) {
  Batcher batcher({.max_sequences = 4, .max_step_tokens = 1000});
  batcher.enqueue(request(0, 300, 5));
  batcher.begin_step();
  ASSERT_NE(batcher.candidate(), nullptr);
  EXPECT_EQ(batcher.candidate()->chunk, 300);
  batcher.admit(280);
  EXPECT_EQ(batcher.running()[0].chunk, 20);
  EXPECT_EQ(batcher.running()[0].context(), 300);
  batcher.end_step(1);
  EXPECT_EQ(batcher.running()[0].produced, 1);
}

TEST(Batcher, KvIsHeldInWholePagesAndReservedForThePrompt) {
  Sequence sequence = request(0, 100, 5);
  sequence.chunk = 20;
  EXPECT_EQ(sequence.held_tokens(), 32);
  EXPECT_EQ(sequence.reserved_tokens(), 112);
  sequence.computed = 112;
  sequence.chunk = 1;
  EXPECT_EQ(sequence.held_tokens(), 128);
  EXPECT_EQ(sequence.reserved_tokens(), 128);
}

// The youngest goes to the head of the queue and recomputes its prompt and what it has said.
TEST(Batcher, PreemptionIsByRecomputation) {
  Batcher batcher({.max_sequences = 4, .max_step_tokens = 100});
  for (std::uint32_t number = 0; number < 3; ++number) batcher.enqueue(request(number, 30, 4));
  batcher.begin_step();
  admit_all(batcher);
  for (Nanos step = 1; step <= 2; ++step) {
    batcher.end_step(step);
    batcher.begin_step();
  }
  batcher.enqueue(request(9, 30, 4));
  batcher.running()[2].images_encoded = 1;
  batcher.preempt_youngest();
  EXPECT_EQ(batcher.running().size(), 2u);
  const Sequence* head = batcher.candidate();
  ASSERT_NE(head, nullptr);
  EXPECT_EQ(head->request, 2u);
  EXPECT_EQ(head->prompt, 32);
  EXPECT_EQ(head->produced, 2);
  EXPECT_EQ(head->preemptions, 1);
  EXPECT_EQ(head->computed, 0);
  EXPECT_EQ(head->images_encoded, 0) << "images are encoded again";
  EXPECT_EQ(head->chunk, 32);

  batcher.admit(0);
  batcher.end_step(3);
  EXPECT_EQ(batcher.running()[2].produced, 3) << "the recomputation gives the next token";
  batcher.begin_step();
  batcher.preempt_youngest();
  EXPECT_EQ(batcher.candidate()->prompt, 33) << "what was said before is not counted twice";
}

// Against what each request is owed: every token exactly once, in order, whatever happens to it.
TEST(Batcher, RandomRunsGiveEveryRequestItsOutput) {
  for (std::uint64_t seed = 1; seed <= 300; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    std::mt19937_64 random(seed);
    const BatchLimits limits{.max_sequences = static_cast<int>(1 + random() % 6),
                             .max_step_tokens = static_cast<Tokens>(1 + random() % 200)};
    Batcher batcher(limits);
    std::map<std::uint32_t, Sequence> owed;
    for (std::uint32_t number = 0; number < 12; ++number) {
      owed[number] = request(number, 1 + static_cast<Tokens>(random() % 300),
                             1 + static_cast<Tokens>(random() % 20));
      batcher.enqueue(owed[number]);
    }
    std::map<std::uint32_t, Tokens> produced;
    int preemptions = 0;
    for (Nanos step = 1; !batcher.idle(); ++step) {
      ASSERT_LT(step, 100'000) << "no progress";
      batcher.begin_step();
      if (random() % 8 == 0 && preemptions < 30 && batcher.running().size() > 1) {
        batcher.preempt_youngest();
        ++preemptions;
      }
      while (const Sequence* next = batcher.candidate()) {
        if (random() % 4 == 0 && !batcher.running().empty()) break;
        batcher.admit(random() % 2 == 0 ? 0 : next->prompt / 3);
      }
      Tokens taken = 0;
      bool prompt_waits = false;
      ASSERT_LE(batcher.running().size(), static_cast<std::size_t>(limits.max_sequences));
      for (const Sequence& sequence : batcher.running()) {
        ASSERT_GE(sequence.chunk, 0);
        taken += sequence.chunk;
        const Sequence& asked = owed[sequence.request];
        // KV of the prompt and of all that was said but the last token, which this step reads.
        ASSERT_LE(sequence.context(), asked.prompt + sequence.produced);
        if (sequence.decoding()) {
          ASSERT_EQ(sequence.computed, asked.prompt + sequence.produced - 1);
          ASSERT_LE(sequence.chunk, 1);
        } else {
          prompt_waits |= sequence.context() < sequence.prompt;
        }
      }
      ASSERT_LE(taken, limits.max_step_tokens);
      if (prompt_waits) {
        ASSERT_EQ(taken, limits.max_step_tokens) << "a prompt waits for nothing";
      }
      batcher.end_step(step);
      for (const Sequence& sequence : batcher.running()) {
        ASSERT_EQ(sequence.chunk, 0);
        const Tokens before = produced[sequence.request];
        ASSERT_TRUE(sequence.produced == before || sequence.produced == before + 1);
        if (sequence.produced > before) {
          ASSERT_EQ(sequence.last_token_ns, step);
        }
        produced[sequence.request] = sequence.produced;
      }
      batcher.remove_finished();
      for (const Sequence& sequence : batcher.running())
        ASSERT_LT(sequence.produced, owed[sequence.request].output);
    }
    for (const auto& [number, sequence] : owed) ASSERT_EQ(produced[number], sequence.output);
  }
}

}  // namespace
}  // namespace modalkv
