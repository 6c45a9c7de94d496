// What an engine may ask of a KvCache beside appending and attending: what each call promises.
#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <limits>
#include <map>
#include <memory>
#include <random>

#include "kernels/page_codec.hpp"
#include "tests/runtime/recorded_engine.hpp"

namespace modalkv {
namespace {

constexpr Segment kImage{TokenClass::image, 256};

TEST(KvCacheCalls, PartialAttentionsMergeToTheWhole) {
  Engine engine;
  const SequenceId image = engine.begin({kImage}), text = engine.begin({{TokenClass::text, 30}}),
                   whole = engine.begin({kImage, {TokenClass::text, 30}});
  ASSERT_EQ(engine.append(image, 0, 256), Status::ok);
  ASSERT_EQ(engine.append(text, 256, 30), Status::ok);
  ASSERT_EQ(engine.append(whole, 0, 286), Status::ok);
  ASSERT_EQ(engine.attend(image, 1, 0, true), Status::ok);
  const std::vector<float> of_image = engine.output();
  std::array<float, kQueryHeads> image_sum{};
  for (int head = 0; head < kQueryHeads; ++head)
    image_sum[static_cast<std::size_t>(head)] = engine.log_sum_exp(head);
  ASSERT_EQ(engine.attend(text, 1, 0, true), Status::ok);
  const std::vector<float> of_text = engine.output();
  std::array<float, kQueryHeads> text_sum{};
  for (int head = 0; head < kQueryHeads; ++head)
    text_sum[static_cast<std::size_t>(head)] = engine.log_sum_exp(head);
  ASSERT_EQ(engine.attend(whole, 1), Status::ok);
  for (std::size_t i = 0; i < of_image.size(); ++i) {
    const std::size_t head = i / kHeadDim;
    const double image_weight = 1 / (1 + std::exp(double{text_sum[head]} - image_sum[head]));
    EXPECT_NEAR(image_weight * of_image[i] + (1 - image_weight) * of_text[i], engine.output()[i],
                2e-3)
        << i;
  }
}

TEST(KvCacheCalls, PartialAttentionIsNotCausalAndNeedsSums) {
  Engine engine;
  const SequenceId sequence = engine.begin({kImage});
  EXPECT_EQ(engine.attend(sequence, 0, 0, true), Status::rejected) << "holds nothing";
  ASSERT_EQ(engine.append(sequence, 0, 100), Status::ok);
  // More queries than tokens here: they are of the engine's own.
  AttendRequest request = engine.query(sequence);
  request.log_sum_exp = {};
  EXPECT_EQ(engine.cache().attend_partial({&request, 1}, 0).status, Status::rejected);
  RuntimeConfig windowed = config_of();
  windowed.window = 16;
  Engine other(windowed);
  const SequenceId with_window = other.begin({kImage});
  ASSERT_EQ(other.append(with_window, 0, 100), Status::ok);
  EXPECT_EQ(other.attend(with_window, 0, 0, true), Status::rejected);
  EXPECT_EQ(other.attend(with_window, 0), Status::ok);
}

TEST(KvCacheCalls, EachNodesCoresAttendToWhatLiesThere) {
  Engine engine;
  const SequenceId sequence = engine.begin({kImage, {TokenClass::text, 20}});
  ASSERT_EQ(engine.append(sequence, 0, 276), Status::ok);
  engine.settle();
  ASSERT_EQ(engine.attend(sequence, 2), Status::ok);
  const std::vector<float> expected = engine.output();
  engine.cache().set_placement(all(Action::resident_high, Action::cpu_low));
  engine.settle();
  engine.recorder().groups.clear();
  ASSERT_EQ(engine.attend(sequence, 2), Status::ok);
  for (std::size_t i = 0; i < expected.size(); ++i)
    EXPECT_NEAR(engine.output()[i], expected[i], 5e-3);
  std::array<std::vector<SpaceId>, 2> spaces;
  Tokens tokens = 0;
  for (const Recorder::Group& group : engine.recorder().groups)
    if (group.queue == QueueKind::host)
      for (const Op& op : group.ops) {
        const auto* attend = std::get_if<Attend>(&op);
        if (attend == nullptr) continue;
        spaces[static_cast<std::size_t>(group.numa_node)].push_back(attend->pages.space);
        tokens += attend->tokens;
      }
  EXPECT_EQ(tokens, 256) << "of the image";
  ASSERT_FALSE(spaces[0].empty());
  ASSERT_FALSE(spaces[1].empty());
  EXPECT_NE(spaces[0][0], spaces[1][0]);
  for (const auto& of_node : spaces)
    for (const SpaceId space : of_node) EXPECT_EQ(space, of_node[0]);
}

// A flipped bit where the host's cores read, and where pages come back from to stay.
TEST(KvCacheCalls, ASpoiledHostPageGivesNoOutput) {
  for (const Action action : {Action::cpu_low, Action::streamed_low}) {
    Engine engine;
    engine.cache().set_placement(all(Action::resident_high, action));
    const SequenceId sequence = engine.begin({{TokenClass::text, 20}, kImage});
    ASSERT_EQ(engine.append(sequence, 0, 276), Status::ok);
    engine.settle();
    ASSERT_EQ(engine.attend(sequence, 0), Status::ok);
    // All that lies on the hosts, one byte a page at least.
    for (std::size_t host = 0; host < 2; ++host)
      for (std::size_t at = 100; at < engine.host_memory(host).size(); at += 1024)
        engine.host_memory(host)[at] ^= std::byte{4};
    if (action == Action::cpu_low) {
      EXPECT_EQ(engine.attend(sequence, 0), Status::checksum);
    } else {
      engine.cache().set_placement(all(Action::resident_high, Action::resident_low));
    }
    const std::vector<RuntimeEvent> events = engine.settle();
    ASSERT_FALSE(events.empty());
    EXPECT_EQ(events[0].kind, RuntimeEvent::Kind::lost);
    EXPECT_EQ(events[0].status, Status::checksum);
    EXPECT_EQ(events[0].first_token, 20) << "the image";
    EXPECT_GT(engine.cache().counters().corrupt_pages, 0);
    EXPECT_EQ(engine.attend(sequence, 0), Status::rejected);
    ASSERT_EQ(engine.cache().truncate(sequence, 20).kept, 20);
    ASSERT_EQ(engine.append(sequence, 20, 256), Status::ok);
    EXPECT_EQ(engine.attend(sequence, 0), Status::ok);
  }
}

// Likewise on the device: which one it was is found there.
TEST(KvCacheCalls, ASpoiledDevicePageGivesNoOutput) {
  for (const bool low : {false, true}) {
    SCOPED_TRACE(low);
    RuntimeConfig config = config_of();
    if (low) config.policy.selection = Selection::none;  // or it waits for text that chooses
    constexpr Tokens kLast = 276 - 64;
    Engine engine(config);
    engine.cache().set_placement(
        all(Action::resident_high, low ? Action::resident_low : Action::resident_high));
    const SequenceId sequence = engine.begin({{TokenClass::text, 20}, kImage}),
                     other = engine.begin({{TokenClass::text, 20}, kImage});
    for (const SequenceId id : {sequence, other}) ASSERT_EQ(engine.append(id, 0, 276), Status::ok);
    engine.settle();
    const auto expected = outputs(engine, sequence);
    // The last page of the image in the last layer, of the sequence that began first.
    const KvFormat format = low ? both(int4_token_head()) : both(fp16());
    const auto bytes = static_cast<std::size_t>(page_bytes({64, kKvHeads, kHeadDim, format}));
    std::map<std::uint64_t, std::span<std::byte>> pages;  // by block
    for (std::size_t at = 0; at + bytes <= engine.device_memory().size(); at += 64) {
      const std::span page(engine.device_memory().data() + at, bytes);
      const PageTrailer trailer = read_trailer(page);
      if (verify_page(page) == Status::ok && trailer.tokens == 64 && trailer.content.words[2] == 2)
        pages.emplace(trailer.content.words[0], page);
    }
    ASSERT_EQ(pages.size(), 8u);
    std::next(pages.begin(), 3)->second[77] ^= std::byte{16};
    EXPECT_EQ(engine.attend(sequence, 1), Status::ok) << "another layer is well";
    EXPECT_EQ(engine.attend(other, 2), Status::ok) << "another sequence is well";
    EXPECT_EQ(engine.attend(sequence, 2), Status::checksum);
    const std::vector<RuntimeEvent> events = engine.settle();
    ASSERT_EQ(events.size(), 1u);
    EXPECT_EQ(events[0].kind, RuntimeEvent::Kind::lost);
    EXPECT_EQ(events[0].status, Status::checksum);
    EXPECT_EQ(events[0].sequence, sequence);
    EXPECT_EQ(events[0].layer, 2);
    EXPECT_EQ(events[0].first_token, kLast);
    EXPECT_EQ(engine.cache().counters().corrupt_pages, 1);
    const Tokens kept = engine.cache().truncate(sequence, kLast).kept;
    ASSERT_EQ(engine.append(sequence, kept, 276 - kept), Status::ok);
    expect_same(outputs(engine, sequence), expected);
  }
}

// An append that fails in one layer leaves pages of it unclosed, whatever later layers do: nobody
// takes them for damaged.
TEST(KvCacheCalls, WhatIsNoNumberIsNotTakenForDamage) {
  Engine engine;
  const SequenceId sequence = engine.begin({{TokenClass::text, 16}});
  ASSERT_EQ(engine.append(sequence, 0, 12), Status::ok);
  engine.settle();
  engine.spoil(40);
  const AppendRequest bad = engine.rows(sequence, 40, 4), good = engine.rows(sequence, 50, 4);
  std::atomic<std::uint64_t> ready{0};
  const Ticket after = engine.recorder().import_event({&ready, 1}).ticket;
  ASSERT_EQ(engine.cache().append({&bad, 1}, 0, {&after, 1}), Status::ok);
  for (int layer = 1; layer < kLayers; ++layer)
    ASSERT_EQ(engine.cache().append({&good, 1}, layer), Status::ok);
  ready = 1;
  const std::vector<RuntimeEvent> events = engine.settle();
  ASSERT_EQ(events.size(), 1u);
  EXPECT_EQ(events[0].status, Status::rejected);
  EXPECT_EQ(events[0].first_token, 12);
  ASSERT_EQ(engine.cache().truncate(sequence, 12).kept, 12);
  ASSERT_EQ(engine.append(sequence, 50, 4), Status::ok);
  for (int layer = 0; layer < kLayers; ++layer)
    EXPECT_EQ(engine.attend(sequence, layer), Status::ok);
  EXPECT_TRUE(engine.settle().empty());
  EXPECT_EQ(engine.cache().counters().corrupt_pages, 0);
}

// All pages of a step would be more operations than a queue takes.
TEST(KvCacheCalls, AStepOfManyPagesIsVerifiedInPart) {
  RuntimeConfig config = config_of();
  config.tables_bytes = 8 * kMiB;
  Engine engine(config, {.device_bytes = 128 * kMiB, .tables_bytes = 8 * kMiB});
  std::vector<SequenceId> all;
  std::vector<AttendRequest> batch;
  for (int i = 0; i < 3; ++i) {
    all.push_back(engine.begin({{TokenClass::text, 32'000}}));
    for (Tokens at = 0; at < 32'000; at += 2000)
      ASSERT_EQ(engine.append(all.back(), 100, 2000), Status::ok);
    batch.push_back(engine.query(all.back(), i));
  }
  engine.settle();
  const std::int64_t before = engine.cache().counters().verified_pages;
  const Attended step = engine.cache().attend(batch, 0);
  ASSERT_EQ(step.status, Status::ok) << engine.cache().describe();
  EXPECT_EQ(engine.cache().wait(step.step, 30 * kSecond), Status::ok);
  EXPECT_GT(engine.cache().counters().verified_pages, before + 500);
  EXPECT_LT(engine.cache().counters().verified_pages, before + 6000);
}

// What is opened again is looked at once more before it is copied.
TEST(KvCacheCalls, AForkWaitsForWhatIsSuspected) {
  Engine engine;
  const SequenceId sequence = engine.begin({{TokenClass::text, 16}});
  ASSERT_EQ(engine.append(sequence, 0, 16), Status::ok);
  engine.settle();
  for (std::byte& byte : engine.device_memory()) byte ^= std::byte{1};
  ASSERT_EQ(engine.cache().truncate(sequence, 12).kept, 12);
  Forked copy = engine.cache().fork(sequence);
  for (int i = 0; i < 1000 && copy.status == Status::busy; ++i) {
    if (engine.cache().poll(kMillisecond)) break;
    copy = engine.cache().fork(sequence);
  }
  EXPECT_EQ(engine.cache().fork(sequence).status, Status::rejected) << "it is lost";
  EXPECT_NE(copy.status, Status::ok);
}

// Pages of a layer are neighbours on the host: few copies bring them, none over a chunk's end.
TEST(KvCacheCalls, OneCopyBringsNeighbours) {
  constexpr Bytes chunk_bytes = 128 * kKiB;
  Engine engine(config_of(), {.host_bytes = 8 * kMiB, .host_chunk_bytes = chunk_bytes});
  engine.cache().set_placement(all(Action::resident_high, Action::streamed_low));
  const SequenceId sequence = engine.begin({{TokenClass::image, 4096}});
  ASSERT_EQ(engine.append(sequence, 0, 4096), Status::ok);
  engine.settle();
  engine.recorder().groups.clear();
  ASSERT_EQ(engine.attend(sequence, 0), Status::ok);
  Bytes copied = 0;
  std::size_t copies = 0;
  for (const Recorder::Group& group : engine.recorder().groups) {
    if (group.queue != QueueKind::h2d) continue;
    for (const Op& op : group.ops) {
      const Address& from = std::get<Copy>(op).from;
      EXPECT_EQ(from.offset / chunk_bytes, (from.offset + from.bytes - 1) / chunk_bytes);
      copied += from.bytes;
      ++copies;
    }
  }
  const Bytes page = page_bytes({64, kKvHeads, kHeadDim, both(int4_token_head())});
  EXPECT_GE(copied, 64 * page);
  EXPECT_LE(copies * 8, static_cast<std::size_t>(copied / page)) << "eight pages a copy, at least";
}

TEST(KvCacheCalls, WaitsForTheEnginesEventAndRaisesOne) {
  Engine engine;
  const SequenceId sequence = engine.begin({kImage});
  ASSERT_EQ(engine.append(sequence, 0, 256), Status::ok);
  engine.settle();
  std::atomic<std::uint64_t> ready{0}, done{0};
  const Ticket after = engine.recorder().import_event({&ready, 7}).ticket;
  const AttendRequest request = engine.query(sequence);
  const Attended attended =
      engine.cache().attend({&request, 1}, 0, std::span(&after, 1), {&done, 3});
  ASSERT_EQ(attended.status, Status::ok);
  EXPECT_EQ(engine.cache().wait(attended.step, 20 * kMillisecond), Status::timeout);
  EXPECT_EQ(done, 0u);
  ready = 7;
  EXPECT_EQ(engine.cache().wait(attended.step, 10 * kSecond), Status::ok);
  EXPECT_EQ(done, 3u);
}

TEST(KvCacheCalls, ACancelledStepSaysSo) {
  Engine engine;
  const SequenceId sequence = engine.begin({kImage});
  ASSERT_EQ(engine.append(sequence, 0, 256), Status::ok);
  engine.settle();
  std::atomic<std::uint64_t> ready{0};
  const Ticket after = engine.recorder().import_event({&ready, 1}).ticket;
  const AttendRequest request = engine.query(sequence);
  const Attended attended = engine.cache().attend({&request, 1}, 0, std::span(&after, 1));
  ASSERT_EQ(attended.status, Status::ok);
  EXPECT_TRUE(engine.cache().cancel(attended.step));
  EXPECT_EQ(engine.cache().wait(attended.step, 20 * kMillisecond), Status::timeout)
      << "its memory is in use still";
  ready = 1;
  EXPECT_EQ(engine.cache().wait(attended.step, 10 * kSecond), Status::cancelled);
  EXPECT_FALSE(engine.cache().cancel(attended.step)) << "it has had its event";
  EXPECT_FALSE(engine.cache().cancel(attended.step + 1));
  EXPECT_EQ(engine.attend(sequence, 0), Status::ok);
}

TEST(KvCacheCalls, ABatchIsAppendedAsAWholeOrNotAtAll) {
  Engine engine;
  const SequenceId a = engine.begin({kImage}), b = engine.begin({{TokenClass::text, 5}});
  const AppendRequest twice[] = {engine.rows(a, 0, 8), engine.rows(a, 8, 8)};
  EXPECT_EQ(engine.append(twice, 0), Status::rejected);
  AppendRequest batch[] = {engine.rows(a, 0, 8), engine.rows(b, 0, 5)};
  batch[1].values.bytes -= 2;
  EXPECT_EQ(engine.append(batch, 0), Status::rejected);
  EXPECT_EQ(engine.append({}, 0), Status::rejected);
  EXPECT_EQ(engine.cache().tokens(a, 0), 0);
  batch[1].values.bytes += 2;
  EXPECT_EQ(engine.append(batch, 0), Status::ok);
  EXPECT_EQ(engine.cache().tokens(a, 0), 8);
  EXPECT_EQ(engine.cache().tokens(b, 0), 5);
}

TEST(KvCacheCalls, WhatABatchLosesIsToldForEachSequence) {
  Engine engine;
  const SequenceId a = engine.begin({{TokenClass::text, 5}}),
                   b = engine.begin({{TokenClass::text, 5}});
  ASSERT_EQ(engine.append(a, 0, 2), Status::ok);
  ASSERT_EQ(engine.append(b, 0, 2), Status::ok);
  engine.spoil(9);
  const AppendRequest batch[] = {engine.rows(a, 5, 2), engine.rows(b, 8, 2)};
  ASSERT_EQ(engine.append(batch, 0), Status::ok);
  std::vector<SequenceId> lost;
  for (const RuntimeEvent& event : engine.settle()) {
    EXPECT_EQ(event.kind, RuntimeEvent::Kind::lost);
    EXPECT_LE(event.first_token, 2);
    lost.push_back(event.sequence);
  }
  EXPECT_EQ(lost, (std::vector{a, b}));
  for (const SequenceId sequence : {a, b}) {
    const Truncated truncated = engine.cache().truncate(sequence, 2);
    EXPECT_EQ(truncated.status, Status::ok);
    EXPECT_EQ(engine.append(sequence, truncated.kept, 4 - truncated.kept), Status::ok);
    EXPECT_EQ(engine.attend(sequence, 0), Status::ok);
  }
}

TEST(KvCacheCalls, AFloorKeepsAnImageInHighPrecision) {
  Engine engine;
  engine.cache().set_placement(all(Action::resident_high, Action::resident_low));
  Segment precious = kImage;
  precious.floor = PrecisionFloor::high;
  const SequenceId kept = engine.begin({precious});
  ASSERT_EQ(engine.append(kept, 0, 256), Status::ok);
  engine.settle();
  EXPECT_EQ(engine.cache().counters().compressed_pages, 0);
  EXPECT_EQ(engine.cache().describe().find("compressed"), std::string::npos);
  const SequenceId other = engine.begin({kImage});
  ASSERT_EQ(engine.append(other, 0, 256), Status::ok);
  engine.settle();
  EXPECT_NE(engine.cache().describe().find("4 resident compressed"), std::string::npos)
      << engine.cache().describe();
}

TEST(KvCacheCalls, WhatIsReservedIsKeptForItsSequence) {
  RuntimeConfig config = config_of();
  config.policy.places = {true, false, false};
  config.policy.visual_low.reset();
  Engine engine(config, {.device_bytes = 2 * kMiB});
  const SequenceId patient = engine.begin({{TokenClass::text, 8}}),
                   greedy = engine.begin({{TokenClass::text, 8}});
  ASSERT_EQ(engine.append(patient, 0, 8), Status::ok);
  ASSERT_EQ(engine.cache().reserve(patient, 400), Status::ok);
  EXPECT_EQ(engine.cache().reserve(greedy, 1'000'000), Status::no_space);
  Status status = Status::ok;
  Tokens taken = 0;
  for (; status == Status::ok && taken < 100'000; taken += 16)
    status = engine.append(greedy, 0, 16);
  EXPECT_EQ(status, Status::no_space) << "the other's room is not for it";
  for (int i = 0; i < 25; ++i)
    ASSERT_EQ(engine.append(patient, 0, 16), Status::ok) << engine.cache().describe();
  EXPECT_NE(engine.cache().describe().find("reserved: 0 bytes"), std::string::npos)
      << engine.cache().describe();
  ASSERT_EQ(engine.cache().release(greedy), Status::ok);
  engine.settle();
  EXPECT_EQ(engine.cache().reserve(patient, 100), Status::ok);
  EXPECT_EQ(engine.cache().reserve(patient, 0), Status::ok);
  EXPECT_NE(engine.cache().describe().find("reserved: 0 bytes"), std::string::npos);
  EXPECT_EQ(engine.cache().reserve(greedy, 1), Status::rejected) << "it is gone";
}

// Whoever is admitted finds room for all that was announced.
TEST(KvCacheCalls, WhoIsAdmittedFindsRoom) {
  for (std::uint32_t seed = 1; seed <= 20; ++seed) {
    SCOPED_TRACE(seed);
    std::mt19937 random(seed);
    RuntimeConfig config = config_of();
    config.policy.places = {true, seed % 2 == 0, false};
    Engine engine(config, {.device_bytes = 2 * kMiB, .host_bytes = 512 * kKiB});
    struct Guest {
      SequenceId id{};
      Tokens left = 0;
    };
    std::vector<Guest> guests;
    for (int i = 0; i < 60; ++i) {
      const auto up_to = [&](int most) { return static_cast<Tokens>(random()) % most; };
      const std::vector<Segment> prompt{{TokenClass::text, 1 + up_to(40)},
                                        {TokenClass::image, 1 + up_to(300)}};
      const Tokens more = up_to(60);
      if (!engine.cache().can_admit(prompt, more)) continue;
      EXPECT_TRUE(engine.cache().can_admit(prompt, more)) << "asking changes nothing";
      guests.push_back({engine.begin(prompt), more});
      const Tokens tokens = prompt[0].tokens + prompt[1].tokens;
      // All of it, before the next is admitted: what is promised is not counted otherwise.
      for (Tokens left = tokens + more; left > 0; left -= 32)
        ASSERT_EQ(engine.append(guests.back().id, 0, std::min<Tokens>(left, 32)), Status::ok)
            << engine.cache().describe();
    }
    EXPECT_GT(guests.size(), 3u);
    EXPECT_LT(guests.size(), 60u) << "somebody was refused";
    for (const Guest& guest : guests) EXPECT_EQ(engine.attend(guest.id, 0), Status::ok);
  }
}

TEST(KvCacheCalls, APrefetchedStepStreamsNothingTwice) {
  RuntimeConfig config = config_of();
  config.staging_slots = 4;
  Engine engine(config);
  engine.cache().set_placement(all(Action::resident_high, Action::streamed_low));
  const SequenceId sequence = engine.begin({kImage});
  ASSERT_EQ(engine.append(sequence, 0, 256), Status::ok);
  engine.settle();
  ASSERT_EQ(engine.cache().prefetch(std::span(&sequence, 1)), Status::ok);
  const Bytes ahead = engine.cache().counters().prefetched_bytes;
  EXPECT_GT(ahead, 0);
  for (int layer = 0; layer < kLayers; ++layer)
    ASSERT_EQ(engine.attend(sequence, layer), Status::ok);
  EXPECT_EQ(engine.cache().counters().wasted_prefetch_bytes, 0);
  EXPECT_EQ(engine.cache().counters().streamed_bytes, engine.cache().counters().prefetched_bytes);
  const SequenceId gone{99, 1};
  EXPECT_EQ(engine.cache().prefetch(std::span(&gone, 1)), Status::rejected);
}

// More is streamed for a layer than the staging slots hold.
TEST(KvCacheCalls, WhatFitsTheSlotsIsBroughtAhead) {
  RuntimeConfig config = config_of();
  config.staging_slots = 3;
  Engine engine(config);
  engine.cache().set_placement(all(Action::resident_high, Action::streamed_low));
  const SequenceId sequence = engine.begin({{TokenClass::image, 4096}});
  ASSERT_EQ(engine.append(sequence, 0, 4096), Status::ok);
  engine.settle();
  const Bytes page = page_bytes({64, kKvHeads, kHeadDim, both(int4_token_head())});
  ASSERT_GT(64 * page, 4 * config.staging_slot_bytes);
  ASSERT_EQ(engine.attend(sequence, 0), Status::ok);
  const std::vector<float> expected = engine.output();
  EXPECT_GT(engine.cache().counters().prefetched_bytes, 2 * config.staging_slot_bytes);
  for (int layer = 1; layer < kLayers; ++layer)
    ASSERT_EQ(engine.attend(sequence, layer), Status::ok);
  ASSERT_EQ(engine.attend(sequence, 0), Status::ok);
  EXPECT_EQ(engine.output(), expected) << "the same rows in every layer";
  EXPECT_EQ(engine.cache().counters().wasted_prefetch_bytes, 0);
  // Four layers' pages, and what is ahead for the fifth.
  const Bytes ahead = engine.cache().counters().streamed_bytes - 4 * 64 * page;
  EXPECT_GE(ahead, 0);
  EXPECT_LT(ahead, 64 * page);
}

// Tables for a few sequences at a time: the lists of others are given up, and nothing is wrong.
TEST(KvCacheCalls, ListsThatDoNotFitAreMadeAnew) {
  RuntimeConfig config = config_of();
  Engine engine(config, {.tables_bytes = 40 * kKiB});
  std::vector<SequenceId> sequences;
  std::vector<std::vector<float>> expected;
  for (int i = 0; i < 12; ++i) {
    sequences.push_back(engine.begin({{TokenClass::text, 40}}));
    ASSERT_EQ(engine.append(sequences.back(), 40 * i, 40), Status::ok);
    ASSERT_EQ(engine.attend(sequences.back(), 1), Status::ok);
    expected.push_back(engine.output());
  }
  for (std::size_t i = 0; i < sequences.size(); ++i)
    for (int layer = 0; layer < kLayers; ++layer) {
      ASSERT_EQ(engine.attend(sequences[i], layer), Status::ok) << i;
      if (layer == 1) {
        EXPECT_EQ(engine.output(), expected[i]);
      }
    }
}

}  // namespace
}  // namespace modalkv
