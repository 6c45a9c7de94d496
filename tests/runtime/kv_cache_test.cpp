// The KV cache in small: what it refuses, and what a spoiled page comes to.
#include "runtime/kv_cache.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>

#include "kernels/page_codec.hpp"
#include "tests/offload/devices.hpp"
#include "tests/runtime/kv_history.hpp"
#include "tests/runtime/test_device.hpp"

namespace modalkv {
namespace {

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
    sequence_ = cache_.begin(prompt)->sequence;
    std::fill_n(reinterpret_cast<std::uint16_t*>(engine_.data()), kRows * 64, to_fp16(0.5f));
    space_ = device_
                 .register_space(
                     {SpaceInfo::Kind::device, static_cast<Bytes>(engine_.size()), engine_.data()})
                 .space;
  }

  CheckingDevice& device() { return device_; }
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
  // It outlives the device, which may still be at work when the test ends.
  std::vector<std::byte> memory_ = std::vector<std::byte>(static_cast<std::size_t>(4 * kMiB)),
                         host_ = memory_, tables_ = memory_, engine_ = memory_;
  TestDevice world_;
  CheckingDevice device_{*world_};
  KvCache cache_{device_,
                 history_config({.seed = 4}),
                 {.device = memory_, .hosts = {{host_}}, .tables = tables_}};
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
  TestDevice world;
  std::vector<std::byte> small(static_cast<std::size_t>(64 * kKiB));
  try {
    KvCache cache(*world, history_config({}),
                  {.device = small, .hosts = {{small}}, .tables = small});
    FAIL();
  } catch (const Error& error) {
    EXPECT_STREQ(error.what(), "KV cache: 65536 bytes are too few, the staging slots need 122880");
  }
}

}  // namespace
}  // namespace modalkv
