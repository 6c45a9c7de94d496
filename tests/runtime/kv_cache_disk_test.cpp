// Content that finds no room on the host: it goes to the disk and comes back whole, also in another
// process, or is computed again.
#include <gtest/gtest.h>

#include <algorithm>

#include "kernels/page_codec.hpp"
#include "modalkv/content.hpp"
#include "tests/offload/memory_disk.hpp"
#include "tests/runtime/recorded_engine.hpp"

namespace modalkv {
namespace {

constexpr Sizes kSmall{.device_bytes = 2 * kMiB, .host_bytes = 512 * kKiB};
constexpr Tokens kWords = 20, kPixels = 256, kShared = kWords + kPixels;

class Disk {
 public:
  explicit Disk(MemoryDisk& memory, Bytes capacity_bytes = 8 * kMiB)
      : disk_(config_of(capacity_bytes), memory.files(4)), tier_(disk_) {}
  DiskTier& tier() { return tier_; }

 private:
  static PageDiskConfig config_of(Bytes capacity_bytes) {
    PageDiskConfig config;
    config.directory = "memory";
    config.capacity_bytes = capacity_bytes;
    config.owner = {{1, 2, 3, 4}};
    config.max_page_bytes = largest_page_bytes(modalkv::config_of());
    config.max_transfers = 4;
    return config;
  }

  PageDisk disk_;
  DiskTier tier_;
};

std::vector<Segment> prompt(std::uint64_t content) {
  return {{TokenClass::text, kWords, {{content, 0, 0, 1}}},
          {TokenClass::image, kPixels, {{content, 0, 0, 2}}},
          {TokenClass::text, 4}};
}

// One chat about a content: its rows are of the content too. What attention comes to.
std::vector<std::vector<float>> chat(Engine& engine, std::uint64_t content) {
  const Begun begun = *engine.cache().begin(prompt(content));
  const auto row = static_cast<Tokens>(content % 8 * 500);
  EXPECT_EQ(engine.append(begun.sequence, row + begun.reused, kShared + 4 - begun.reused),
            Status::ok)
      << engine.cache().describe();
  auto all = outputs(engine, begun.sequence);
  EXPECT_EQ(engine.cache().release(begun.sequence), Status::ok);
  return all;
}

// So much that what was there before has left the host.
void flood(Engine& engine, std::uint64_t first_content, int contents = 40) {
  for (int i = 0; i < contents; ++i) chat(engine, first_content + static_cast<std::uint64_t>(i));
  engine.settle();
}

TEST(KvCacheDisk, WhatHasLeftTheHostComesBackAlsoInAnotherProcess) {
  MemoryDisk memory(8 * kMiB);
  std::vector<std::vector<float>> expected;
  {
    Disk disk(memory);
    Engine engine(config_of(), kSmall, &disk.tier());
    expected = chat(engine, 3);
    flood(engine, 100);
    const RuntimeCounters& counters = engine.cache().counters();
    ASSERT_GT(counters.stored_segments, 0);
    EXPECT_EQ(counters.loaded_segments, 0);
    ASSERT_EQ(engine.cache().lookup(prompt(3)), kShared) << engine.cache().describe();
    expect_same(chat(engine, 3), expected);
    EXPECT_GT(counters.loaded_segments, 0);
    EXPECT_EQ(counters.reused_tokens, kShared);
    EXPECT_EQ(counters.unloaded_segments + counters.unstored_segments, 0);
    flood(engine, 200);
    EXPECT_TRUE(engine.checker().findings().empty());
  }
  Disk disk(memory);
  Engine engine(config_of(), kSmall, &disk.tier());
  ASSERT_EQ(engine.cache().lookup(prompt(3)), kShared);
  expect_same(chat(engine, 3), expected);
  EXPECT_GT(engine.cache().counters().loaded_segments, 0);
  engine.cache().forget_content();
  EXPECT_EQ(engine.cache().lookup(prompt(3)), 0);
  EXPECT_EQ(engine.cache().lookup(prompt(110)), 0);
}

// What a larger host has stored: nothing leaves in vain for what can never come.
TEST(KvCacheDisk, WhatIsLargerThanTheHostIsComputedAgain) {
  MemoryDisk memory(8 * kMiB);
  const std::vector<Segment> large{{TokenClass::image, 3000, {{7, 0, 0, 7}}},
                                   {TokenClass::text, 4}};
  {
    Disk disk(memory);
    Engine engine(config_of(), {.device_bytes = 4 * kMiB, .host_bytes = kMiB}, &disk.tier());
    engine.cache().set_placement(all(Action::streamed_high, Action::streamed_low));
    const SequenceId sequence = engine.begin(large);
    for (Tokens at = 0; at < 3000; at += 500) {
      ASSERT_EQ(engine.append(sequence, at, 500), Status::ok);
      engine.settle();
    }
    ASSERT_EQ(engine.append(sequence, 3000, 4), Status::ok);
    engine.settle();
    ASSERT_EQ(engine.cache().release(sequence), Status::ok);
    flood(engine, 100);
    ASSERT_EQ(engine.cache().lookup(large), 3000) << engine.cache().describe();
  }
  Disk disk(memory);
  Engine engine(config_of(), {.device_bytes = 2 * kMiB, .host_bytes = 128 * kKiB}, &disk.tier());
  chat(engine, 3);
  engine.settle();
  EXPECT_EQ(engine.cache().begin(large)->reused, 0);
  const RuntimeCounters& counters = engine.cache().counters();
  EXPECT_EQ(counters.unloaded_segments, 1);
  EXPECT_EQ(counters.evicted_segments, 0);
  EXPECT_EQ(engine.cache().lookup(prompt(3)), kShared);
}

// As long as memory takes no part in it: nobody would wait for this test else.
TEST(KvCacheDisk, ALongSegmentThatIsNotThereIsSoonKnown) {
  MemoryDisk memory(8 * kMiB);
  Disk disk(memory);
  Engine engine(config_of(), kSmall, &disk.tier());
  constexpr Tokens kMany = Tokens{1} << 36;
  EXPECT_EQ(engine.cache().lookup(std::vector<Segment>{{TokenClass::text, kMany, {{1, 0, 0, 1}}},
                                                       {TokenClass::text, 1}}),
            0);
}

// Every page of the image, as it lies on the host.
std::vector<std::vector<std::byte>> pages_of(Engine& engine, std::uint64_t content) {
  const auto ids = chain(prompt(content), "");
  const auto bytes =
      static_cast<std::size_t>(page_bytes({64, kKvHeads, kHeadDim, both(int4_token_head())}));
  std::vector<std::vector<std::byte>> pages;
  for (std::size_t host = 0; host < 2; ++host) {
    const std::vector<std::byte>& memory = engine.host_memory(host);
    for (std::size_t at = 0; at + bytes <= memory.size(); at += 64) {
      const std::span page(memory.data() + at, bytes);
      if (read_trailer(page).content.words == ids[1].words && verify_page(page) == Status::ok)
        pages.emplace_back(page.begin(), page.end());
    }
  }
  return pages;
}

TEST(KvCacheDisk, WhatIsDamagedThereIsComputedAgain) {
  MemoryDisk memory(8 * kMiB);
  Disk disk(memory);
  RuntimeConfig config = config_of();
  Engine engine(config, kSmall, &disk.tier());
  const auto expected = chat(engine, 3);
  std::vector<std::vector<std::byte>> pages;
  for (std::uint64_t other = 100; pages.empty() && other < 140; ++other) {
    chat(engine, other);
    engine.settle();
    pages = pages_of(engine, 3);
  }
  ASSERT_FALSE(pages.empty());
  flood(engine, 200);
  ASSERT_EQ(engine.cache().lookup(prompt(3)), kShared);
  ASSERT_TRUE(memory.flip(pages.back()));

  const Begun begun = *engine.cache().begin(prompt(3));
  EXPECT_EQ(begun.reused, kShared) << "nobody can know yet";
  const std::vector<RuntimeEvent> events = engine.settle();
  ASSERT_FALSE(events.empty());
  Tokens from = kShared;
  for (const RuntimeEvent& event : events) {
    EXPECT_EQ(event.kind, RuntimeEvent::Kind::lost);
    EXPECT_EQ(event.status, Status::checksum);
    EXPECT_EQ(event.sequence, begun.sequence);
    from = std::min(from, event.first_token);
  }
  EXPECT_EQ(from, 16) << "with the copy of the page that the words end in";
  EXPECT_GT(engine.cache().counters().unloaded_segments, 0);
  EXPECT_LT(engine.cache().lookup(prompt(3)), kShared);
  const Tokens kept = engine.cache().truncate(begun.sequence, from).kept;
  ASSERT_EQ(engine.append(begun.sequence, 3 * 500 + kept, kShared + 4 - kept), Status::ok);
  expect_same(outputs(engine, begun.sequence), expected);
  EXPECT_EQ(engine.cache().lookup(prompt(3)), kShared) << "it is kept again";
}

TEST(KvCacheDisk, ASequenceThatGoesWhileItIsLoadedLeavesNothingBehind) {
  MemoryDisk memory(8 * kMiB);
  Disk disk(memory);
  Engine engine(config_of(), kSmall, &disk.tier());
  chat(engine, 3);
  flood(engine, 100);
  for (const bool forgets : {false, true}) {
    const Begun begun = *engine.cache().begin(prompt(3));
    ASSERT_EQ(begun.reused, kShared);
    EXPECT_EQ(engine.cache().truncate(begun.sequence, 100).kept, kWords + 64);
    EXPECT_EQ(engine.cache().pause(begun.sequence), Status::ok);
    if (forgets) engine.cache().forget_content();
    ASSERT_EQ(engine.cache().release(begun.sequence), Status::ok);
    engine.settle();
    EXPECT_EQ(engine.cache().lookup(prompt(3)), forgets ? 0 : kShared);
  }
  EXPECT_EQ(engine.cache().usage().blocks, 0);
  for (const PoolUsage& pool : engine.cache().usage().pools) EXPECT_EQ(pool.used_bytes, 0);
}

// While the disk reads it, into a host that is empty, and while it waits for room there.
TEST(KvCacheDisk, WhatIsForgottenBeforeItHasComeIsLostAsCancelled) {
  for (const bool waits : {false, true}) {
    SCOPED_TRACE(waits);
    MemoryDisk memory(8 * kMiB);
    std::optional<Disk> disk(memory);
    std::optional<Engine> engine;
    engine.emplace(config_of(), kSmall, &disk->tier());
    const auto expected = chat(*engine, 3);
    flood(*engine, 100);
    if (!waits) {
      engine.reset();
      engine.emplace(config_of(), kSmall, &disk.emplace(memory).tier());
    }
    const Begun begun = *engine->cache().begin(prompt(3));
    ASSERT_EQ(begun.reused, kShared);
    engine->cache().forget_content();
    const std::vector<RuntimeEvent> events = engine->settle();
    EXPECT_FALSE(events.empty());
    for (const RuntimeEvent& event : events) {
      EXPECT_EQ(event.kind, RuntimeEvent::Kind::lost);
      EXPECT_EQ(event.status, Status::cancelled) << name(event.status);
      EXPECT_EQ(event.sequence, begun.sequence);
    }
    EXPECT_GT(disk->tier().counters().cancelled_jobs, 0u);
    EXPECT_EQ(disk->tier().counters().failed_jobs, 0u) << "the disk does its work";
    const Tokens kept = engine->cache().truncate(begun.sequence, 0).kept;
    ASSERT_EQ(engine->append(begun.sequence, 3 * 500 + kept, kShared + 4 - kept), Status::ok);
    expect_same(outputs(*engine, begun.sequence), expected);
  }
}

TEST(KvCacheDisk, AFullDiskCostsWhatIsWorthLeast) {
  MemoryDisk memory(256 * kKiB);
  Disk disk(memory, 256 * kKiB);
  Engine engine(config_of(), kSmall, &disk.tier());
  flood(engine, 100, 80);
  EXPECT_GT(disk.tier().counters().evicted_units, 0u);
  const auto expected = chat(engine, 3);
  expect_same(chat(engine, 3), expected);
  int reusable = 0;
  for (std::uint64_t content = 100; content < 180; ++content)
    reusable += engine.cache().lookup(prompt(content)) == kShared ? 1 : 0;
  EXPECT_GT(reusable, 3);
  EXPECT_LT(reusable, 80);
}

}  // namespace
}  // namespace modalkv
