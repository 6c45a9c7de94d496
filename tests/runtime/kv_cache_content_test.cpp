// KV of known content: who may share it, what becomes of it, and that attention does not tell.
#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <random>

#include "kernels/page_codec.hpp"
#include "tests/runtime/recorded_engine.hpp"
#include "tests/runtime/reuse_oracle.hpp"

namespace modalkv {
namespace {

Segment known(TokenClass token_class, Tokens tokens, std::uint64_t content) {
  return {token_class, tokens, {{content, 2, 3, 4}}};
}
Segment text(Tokens tokens) {
  return {TokenClass::text, tokens};
}

// 21 own tokens, which are a block and a part of one, and two visual blocks.
const std::vector<Segment> kShared{known(TokenClass::text, 20, 1),
                                   known(TokenClass::image, 100, 2)};
constexpr Tokens kSharedTokens = 120;

std::vector<Segment> prompt(Tokens question) {
  std::vector<Segment> all = kShared;
  all.push_back(text(question));
  return all;
}

// The first who comes, whose tokens are rows from the first on.
SequenceId append_first(Engine& engine, Tokens question = 6) {
  const SequenceId first = engine.begin(prompt(question));
  EXPECT_EQ(engine.append(first, 0, kSharedTokens + question), Status::ok);
  engine.settle();
  return first;
}

TEST(KvCacheContent, AnImageIsAppendedOnceAndAttendedToByAll) {
  Engine engine;
  const SequenceId first = append_first(engine);
  const auto expected = outputs(engine, first);
  EXPECT_EQ(engine.cache().counters().kept_segments, 2);
  const auto before = engine.cache().usage();

  ASSERT_EQ(engine.cache().lookup(prompt(6)), kSharedTokens);
  const Begun second = *engine.cache().begin(prompt(6));
  EXPECT_EQ(second.reused, kSharedTokens);
  for (int layer = 0; layer < kLayers; ++layer)
    EXPECT_EQ(engine.cache().tokens(second.sequence, layer), kSharedTokens);
  ASSERT_EQ(engine.append(second.sequence, kSharedTokens, 6), Status::ok);
  expect_same(outputs(engine, second.sequence), expected);
  // A block and a half of text, of which the half is its own.
  EXPECT_EQ(engine.cache().usage().blocks, before.blocks + 1);

  const RuntimeCounters& counters = engine.cache().counters();
  EXPECT_EQ(counters.reuse_hits, 1);
  EXPECT_EQ(counters.reuse_misses, 1);
  EXPECT_EQ(counters.known_tokens, 2 * kSharedTokens);
  EXPECT_EQ(counters.reused_tokens, kSharedTokens);
  // What the two go on with is their own.
  ASSERT_EQ(engine.append(first, 200, 30), Status::ok);
  ASSERT_EQ(engine.append(second.sequence, 300, 30), Status::ok);
  const SequenceId alone = engine.begin({text(20), {TokenClass::image, 100}, text(6)});
  ASSERT_EQ(engine.append(alone, 0, kSharedTokens + 6), Status::ok);
  ASSERT_EQ(engine.append(alone, 300, 30), Status::ok);
  expect_same(outputs(engine, second.sequence), outputs(engine, alone));
  EXPECT_TRUE(engine.checker().findings().empty()) << engine.checker().findings()[0].message;
}

TEST(KvCacheContent, WhatIsReusedMayBeAttendedToBeforeAnythingFollows) {
  Engine engine;
  const SequenceId first = append_first(engine);
  for (const bool forks : {false, true}) {
    Begun second = *engine.cache().begin(prompt(6));
    ASSERT_EQ(second.reused, kSharedTokens);
    if (forks) {
      ASSERT_EQ(engine.cache().fork(second.sequence).status, Status::busy) << "its copy is made";
      engine.settle();
      const Forked copy = engine.cache().fork(second.sequence);
      ASSERT_EQ(copy.status, Status::ok);
      ASSERT_EQ(engine.cache().release(second.sequence), Status::ok);
      second.sequence = copy.sequence;
    }
    ASSERT_EQ(engine.cache().pause(second.sequence), Status::ok);
    engine.settle();
    ASSERT_EQ(engine.cache().resume(second.sequence), Status::ok);
    const auto reused = outputs(engine, second.sequence);
    const SequenceId alone = engine.begin({text(20), {TokenClass::image, 100}, text(6)});
    ASSERT_EQ(engine.append(alone, 0, kSharedTokens), Status::ok);
    expect_same(reused, outputs(engine, alone));
    ASSERT_EQ(engine.cache().release(second.sequence), Status::ok);
  }
  EXPECT_EQ(engine.cache().release(first), Status::ok);
}

TEST(KvCacheContent, IsFoundOnlyBehindTheSamePrefix) {
  Engine engine;
  append_first(engine);
  const auto reusable = [&](std::vector<Segment> begin) {
    begin.push_back(text(5));
    return engine.cache().lookup(begin);
  };
  const Segment words = kShared[0], image = kShared[1];
  EXPECT_EQ(reusable({words, image}), kSharedTokens);
  EXPECT_EQ(reusable({words}), 16) << "of text, whole blocks";
  EXPECT_EQ(reusable({image}), 0);
  EXPECT_EQ(reusable({image, words}), 0);
  EXPECT_EQ(reusable({text(20), image}), 0) << "text of which nothing is known";
  EXPECT_EQ(reusable({words, words, image}), 16);
  EXPECT_EQ(reusable({known(TokenClass::text, 21, 1), image}), 0);
  EXPECT_EQ(reusable({words, known(TokenClass::video, 100, 2)}), 16);
  Segment precious = image;
  precious.floor = PrecisionFloor::high;
  EXPECT_EQ(reusable({words, precious}), 16) << "kept otherwise";
  // An id is all its bits.
  for (std::size_t word = 0; word < 4; ++word)
    for (const int bit : {0, 31, 63}) {
      Segment other = image;
      other.content.words[word] ^= std::uint64_t{1} << bit;
      EXPECT_EQ(reusable({words, other}), 16) << word << ' ' << bit;
    }
}

TEST(KvCacheContent, ATokenIsLeftToCompute) {
  Engine engine;
  const std::vector<Segment> all{known(TokenClass::text, 40, 1), known(TokenClass::image, 100, 2),
                                 known(TokenClass::text, 23, 3)};
  const SequenceId first = engine.begin(all);
  ASSERT_EQ(engine.append(first, 0, 163), Status::ok);
  engine.settle();
  EXPECT_EQ(engine.cache().lookup({all.data(), 1}), 32);
  EXPECT_EQ(engine.cache().lookup({all.data(), 2}), 32) << "an image cannot be cut";
  // 64 own tokens are four blocks, of which the last one ends with the prompt.
  EXPECT_EQ(engine.cache().lookup(all), 40 + 100 + 7);
  std::vector<Segment> longer = all;
  longer.push_back(text(1));
  EXPECT_EQ(engine.cache().lookup(longer), 163);
}

TEST(KvCacheContent, NoMoreIsReusedThanTheBoundSays) {
  Engine engine;
  const SequenceId first = append_first(engine);
  const auto expected = outputs(engine, first);
  for (const Tokens bound : {Tokens{-1}, Tokens{0}, Tokens{15}, Tokens{16}, Tokens{20}, Tokens{119},
                             kSharedTokens, kAllTokens}) {
    SCOPED_TRACE(bound);
    const Begun begun = *engine.cache().begin(prompt(6), bound);
    EXPECT_EQ(begun.reused, bound < 16 ? 0 : bound < kSharedTokens ? 16 : kSharedTokens);
    ASSERT_EQ(engine.append(begun.sequence, begun.reused, kSharedTokens + 6 - begun.reused),
              Status::ok);
    expect_same(outputs(engine, begun.sequence), expected);
    engine.settle();
    ASSERT_EQ(engine.cache().release(begun.sequence), Status::ok);
    EXPECT_EQ(engine.cache().lookup(prompt(6)), kSharedTokens) << "it stays for others";
  }
  EXPECT_EQ(engine.cache().counters().kept_segments, 2) << "each once";
}

// Of a group, each of which has computed as much of the prompt as it happened to. The least that
// all of them find is where they can all begin.
TEST(KvCacheContent, RanksThatHaveOtherContentBeginAlike) {
  const Tokens page_tokens = config_of().own_page_tokens;
  std::mt19937_64 random(11);
  const auto up_to = [&](Tokens most) {
    return static_cast<Tokens>(random() % static_cast<std::uint64_t>(most + 1));
  };
  for (int trial = 0; trial < 12; ++trial) {
    std::vector<Segment> all;
    Tokens prompt_tokens = 0;
    for (std::uint64_t i = 0; i < 5; ++i) {
      const bool image = random() % 2 == 0;
      all.push_back(
          known(image ? TokenClass::image : TokenClass::text, 1 + up_to(image ? 130 : 60), i + 1));
      prompt_tokens += all.back().tokens;
    }
    std::vector<std::unique_ptr<Engine>> ranks;
    std::vector<Tokens> found;
    for (int rank = 0; rank < 2; ++rank) {
      Engine& engine = *ranks.emplace_back(std::make_unique<Engine>());
      const Tokens appended = up_to(prompt_tokens);
      const SequenceId sequence = engine.begin(all);
      if (appended > 0) {
        ASSERT_EQ(engine.append(sequence, 0, appended), Status::ok);
      }
      engine.settle();
      Tokens whole = 0;  // segments
      for (const Segment& segment : all) {
        if (whole + segment.tokens > appended) break;
        whole += segment.tokens;
      }
      found.push_back(engine.cache().lookup(all));
      ASSERT_EQ(found.back(), last_reuse_end(all, page_tokens, std::min(whole, prompt_tokens - 1)));
    }
    const Tokens least = *std::min_element(found.begin(), found.end());
    for (std::size_t rank = 0; rank < ranks.size(); ++rank) {
      KvCache& cache = ranks[rank]->cache();
      EXPECT_EQ(cache.begin(all, least)->reused, least);
      for (int i = 0; i < 10; ++i) {
        const Tokens bound = up_to(prompt_tokens);
        EXPECT_EQ(cache.begin(all, bound)->reused,
                  last_reuse_end(all, page_tokens, std::min(bound, found[rank])));
      }
    }
  }
}

TEST(KvCacheContent, StaysWhenItsSequenceIsGoneUntilItIsForgotten) {
  Engine engine;
  const SequenceId first = append_first(engine);
  const auto expected = outputs(engine, first);
  ASSERT_EQ(engine.cache().release(first), Status::ok);
  engine.settle();
  const Begun second = *engine.cache().begin(prompt(6));
  ASSERT_EQ(second.reused, kSharedTokens);
  ASSERT_EQ(engine.append(second.sequence, kSharedTokens, 6), Status::ok);
  expect_same(outputs(engine, second.sequence), expected);

  engine.cache().forget_content();
  EXPECT_EQ(engine.cache().lookup(prompt(6)), 0);
  expect_same(outputs(engine, second.sequence), expected);
  ASSERT_EQ(engine.append(second.sequence, 200, 20), Status::ok);
  EXPECT_EQ(engine.cache().lookup(prompt(6)), 0) << "what runs is of the old content";
  ASSERT_EQ(engine.cache().release(second.sequence), Status::ok);
  engine.settle();
  EXPECT_EQ(engine.cache().usage().blocks, 0);
}

TEST(KvCacheContent, TruncatingWhatIsSharedLeavesItToTheOthers) {
  Engine engine;
  const SequenceId first = append_first(engine);
  const auto expected = outputs(engine, first);
  const Begun second = *engine.cache().begin(prompt(6));
  // Within the image it goes by the block; behind it nothing has been made yet that must go.
  EXPECT_EQ(engine.cache().truncate(second.sequence, kSharedTokens).kept, kSharedTokens);
  const std::int64_t blocks = engine.cache().usage().blocks;
  const Forked copy = engine.cache().fork(second.sequence);
  EXPECT_EQ(copy.status, Status::busy) << "its tail is copied";
  engine.settle();
  const Forked again = engine.cache().fork(second.sequence);
  ASSERT_EQ(again.status, Status::ok);
  EXPECT_EQ(engine.cache().usage().blocks, blocks + 2) << "a block of each one's own";
  ASSERT_EQ(engine.cache().release(again.sequence), Status::ok);
  EXPECT_EQ(engine.cache().truncate(second.sequence, 90).kept, 84);
  EXPECT_EQ(engine.cache().truncate(second.sequence, 18).kept, 18);
  // Rows other than those of the first sequence.
  ASSERT_EQ(engine.append(second.sequence, 500, 2), Status::ok);
  expect_same(outputs(engine, first), expected);
  ASSERT_EQ(engine.cache().truncate(first, 3).kept, 0) << "its block is shared";
  ASSERT_EQ(engine.append(first, 0, kSharedTokens + 6), Status::ok);
  expect_same(outputs(engine, first), expected);
  EXPECT_EQ(engine.cache().lookup(prompt(6)), kSharedTokens);
}

// With the host in use, and where KV stays on the device: what nobody uses makes room for what
// comes, and only that.
TEST(KvCacheContent, MakesRoomForWhatComes) {
  for (const bool may_leave : {false, true}) {
    SCOPED_TRACE(may_leave);
    RuntimeConfig config = config_of();
    config.policy.places = {true, may_leave, false};
    Engine engine(config, {.device_bytes = 2 * kMiB, .host_bytes = 512 * kKiB});
    const SequenceId in_use = append_first(engine);
    const auto expected = outputs(engine, in_use);
    for (std::uint64_t content = 10; content < 60; ++content) {
      const SequenceId sequence = engine.begin({known(TokenClass::image, 256, content), text(4)});
      ASSERT_EQ(engine.append(sequence, 0, 260), Status::ok) << engine.cache().describe();
      ASSERT_EQ(engine.attend(sequence, 1), Status::ok);
      ASSERT_EQ(engine.cache().release(sequence), Status::ok);
    }
    engine.settle();
    const RuntimeCounters& counters = engine.cache().counters();
    EXPECT_GT(counters.evicted_segments, 10);
    EXPECT_EQ(counters.left_bytes > 0, may_leave);
    EXPECT_EQ(engine.cache().lookup(prompt(6)), kSharedTokens) << "it is in use";
    const std::vector<Segment> latest{known(TokenClass::image, 256, 59), text(1)};
    EXPECT_EQ(engine.cache().lookup(latest), 256) << engine.cache().describe();
    expect_same(outputs(engine, in_use), expected);
  }
}

// The copies of images' last rows, which others could begin with, give way to those who run: a
// prompt that is admitted finds its room.
TEST(KvCacheContent, WhatIsAdmittedFindsRoomWhereCopiesTookIt) {
  RuntimeConfig config = config_of();
  config.policy.places = {true, false, false};
  Engine engine(config);
  engine.cache().set_placement(all(Action::resident_high, Action::resident_low));
  std::vector<SequenceId> running;
  for (std::uint64_t content = 10; content < 1000; ++content) {
    std::vector<Segment> images;
    for (std::uint64_t image = 0; image < 4; ++image)
      images.push_back(known(TokenClass::image, 66, 4 * content + image));
    images.push_back(text(3));
    if (!engine.cache().can_admit(images, 0)) break;
    running.push_back(engine.begin(images));
    ASSERT_EQ(engine.append(running.back(), 0, 267), Status::ok) << engine.cache().describe();
    engine.settle();
  }
  EXPECT_GT(running.size(), 10u);
  EXPECT_GT(engine.cache().counters().kept_segments, 20);
  for (const SequenceId sequence : running) EXPECT_EQ(engine.cache().release(sequence), Status::ok);
}

// A question too short for a block of its own is kept as well, and holds nothing.
TEST(KvCacheContent, AShortKnownQuestionDoesNotHoldItsImage) {
  for (const bool may_leave : {false, true}) {
    RuntimeConfig config = config_of();
    config.policy.places = {true, may_leave, false};
    Engine engine(config, {.device_bytes = 2 * kMiB, .host_bytes = 512 * kKiB});
    for (std::uint64_t content = 10; content < 60; ++content) {
      const SequenceId sequence = engine.begin(
          {known(TokenClass::image, 256, content), known(TokenClass::text, 4, 1), text(1)});
      ASSERT_EQ(engine.append(sequence, 0, 261), Status::ok) << engine.cache().describe();
      engine.settle();
      ASSERT_EQ(engine.cache().release(sequence), Status::ok);
    }
    EXPECT_GT(engine.cache().counters().evicted_segments, 10);
  }
}

// Found in the middle of a step: all that share the page compute it again, and nobody finds it.
TEST(KvCacheContent, ASpoiledPageIsLostToAllThatShareIt) {
  Engine engine;
  const SequenceId first = append_first(engine);
  const auto expected = outputs(engine, first);
  const Begun second = *engine.cache().begin(prompt(6));
  ASSERT_EQ(engine.append(second.sequence, kSharedTokens, 6), Status::ok);
  engine.cache().set_placement(all(Action::resident_high, Action::streamed_low));
  engine.settle();
  int spoiled = 0;
  for (std::size_t host = 0; host < 2; ++host) {
    std::vector<std::byte>& memory = engine.host_memory(host);
    const auto bytes =
        static_cast<std::size_t>(page_bytes({64, kKvHeads, kHeadDim, both(int4_token_head())}));
    for (std::size_t at = 0; at + bytes <= memory.size(); at += 64) {
      const std::span page(memory.data() + at, bytes);
      if (read_trailer(page).tokens != 64 || verify_page(page) != Status::ok) continue;
      page[77] ^= std::byte{1};
      ++spoiled;
    }
  }
  ASSERT_GT(spoiled, 0) << engine.cache().describe();
  EXPECT_EQ(engine.attend(first, 1), Status::checksum);
  std::vector<SequenceId> lost;
  for (const RuntimeEvent& event : engine.settle()) {
    EXPECT_EQ(event.kind, RuntimeEvent::Kind::lost);
    EXPECT_EQ(event.first_token, 20);
    lost.push_back(event.sequence);
  }
  EXPECT_EQ(lost.size(), 2u);
  EXPECT_GT(engine.cache().counters().spoiled_segments, 0);
  EXPECT_LT(engine.cache().lookup(prompt(6)), kSharedTokens);
  for (const SequenceId sequence : lost) {
    const Tokens kept = engine.cache().truncate(sequence, 20).kept;
    ASSERT_EQ(engine.append(sequence, kept, kSharedTokens + 6 - kept), Status::ok);
    expect_same(outputs(engine, sequence), expected);
  }
}

}  // namespace
}  // namespace modalkv
