#include "offload/index_log.hpp"

#include <gtest/gtest.h>

#include <map>
#include <random>

#include "tests/offload/disk_pages.hpp"
#include "tests/offload/memory_log.hpp"

namespace modalkv {
namespace {

constexpr ContentId kOwner{{1, 2, 3, 4}};
constexpr Bytes kMinCompact = 8 * kIndexRecordBytes;

StoredPage numbered_stored(std::uint64_t number, std::uint64_t generation) {
  return {numbered_key(number), generation, {static_cast<Bytes>(number) * 8192, 8192}};
}

IndexRecord stores(std::uint64_t number, std::uint64_t generation) {
  return {IndexRecord::Kind::store, numbered_stored(number, generation)};
}

IndexRecord erases(std::uint64_t number, std::uint64_t generation) {
  return {IndexRecord::Kind::erase, numbered_stored(number, generation)};
}

Status append(IndexLog& log, const IndexRecord& record) {
  return log.append(std::span(&record, 1));
}

std::vector<StoredPage> reopened(MemoryLog& file) {
  return IndexLog(file, kOwner, "index", kMinCompact).take_recovered().pages;
}

TEST(IndexLog, SaysWhatItWasTold) {
  MemoryLog file;
  {
    IndexLog log(file, kOwner, "index", kMinCompact);
    const IndexRecord batch[] = {stores(1, 10), stores(2, 11), stores(3, 12), erases(2, 11)};
    ASSERT_EQ(log.append(batch), Status::ok);
    ASSERT_EQ(append(log, erases(3, 99)), Status::ok);  // another generation: not this page
    ASSERT_EQ(append(log, erases(4, 13)), Status::ok);  // was never here
  }
  IndexLog log(file, kOwner, "index", kMinCompact);
  const RecoveredIndex found = log.take_recovered();
  EXPECT_EQ(found.pages, (std::vector{numbered_stored(1, 10), numbered_stored(3, 12)}));
  EXPECT_EQ(found.next_generation, 100u);
  EXPECT_EQ(found.lost_bytes, 0);
}

TEST(IndexLog, IsRewrittenOnceItIsMostlyOfThePast) {
  MemoryLog file;
  IndexLog log(file, kOwner, "index", kMinCompact);
  for (std::uint64_t i = 0; i < 1000; ++i) {
    ASSERT_EQ(append(log, stores(i % 3, i + 1)), Status::ok);
    ASSERT_LE(log.bytes(), kMinCompact + kIndexRecordBytes);
  }
  EXPECT_GT(log.counters().compactions, 100u);
  EXPECT_EQ(reopened(file).size(), 3u);
  EXPECT_EQ(reopened(file).back(), numbered_stored(999 % 3, 1000));
}

TEST(IndexLog, GenerationsGoOnAlsoWhereAllIsErased) {
  MemoryLog file;
  {
    IndexLog log(file, kOwner, "index", kMinCompact);
    for (std::uint64_t i = 1; i < 50; ++i) {
      ASSERT_EQ(append(log, stores(1, i)), Status::ok);
      ASSERT_EQ(append(log, erases(1, i)), Status::ok);
    }
  }
  IndexLog log(file, kOwner, "index", kMinCompact);
  EXPECT_EQ(log.take_recovered().next_generation, 50u);
}

TEST(IndexLog, AFailedBatchNeverCountsAfterAnotherWasWritten) {
  MemoryLog file;
  {
    IndexLog log(file, kOwner, "index", 100 * kIndexRecordBytes);
    ASSERT_EQ(append(log, stores(1, 1)), Status::ok);
    file.fail_writes = 1;
    // Two of three reach the file; the first of them will be overwritten, the second is left over.
    const IndexRecord batch[] = {stores(2, 2), erases(1, 1), stores(3, 3)};
    ASSERT_EQ(log.append(batch), Status::no_space);
    ASSERT_EQ(append(log, stores(4, 4)), Status::ok);
  }
  EXPECT_EQ(reopened(file), (std::vector{numbered_stored(1, 1), numbered_stored(4, 4)}));
}

TEST(IndexLog, TryingAgainDoesNotBringBackTheRestOfAFailedBatch) {
  MemoryLog file;
  {
    IndexLog log(file, kOwner, "index", 100 * kIndexRecordBytes);
    const IndexRecord first[] = {stores(1, 1), stores(2, 2)};
    ASSERT_EQ(log.append(first), Status::ok);
    file.fail_writes = 1;
    const IndexRecord batch[] = {erases(1, 1), erases(2, 2), stores(3, 3)};
    ASSERT_EQ(log.append(batch), Status::no_space);
    ASSERT_EQ(append(log, erases(1, 1)), Status::ok);
  }
  EXPECT_EQ(reopened(file), std::vector{numbered_stored(2, 2)});
}

TEST(IndexLog, AfterAFailedSyncNothingIsPromised) {
  MemoryLog file;
  {
    IndexLog log(file, kOwner, "index", kMinCompact);
    ASSERT_EQ(append(log, stores(1, 1)), Status::ok);
    file.fail_syncs = 1;
    EXPECT_EQ(append(log, stores(2, 2)), Status::io_error);
    EXPECT_EQ(append(log, stores(3, 3)), Status::io_error);
    EXPECT_TRUE(log.counters().failed);
  }
  EXPECT_EQ(reopened(file).front(), numbered_stored(1, 1));
}

TEST(IndexLog, ACompactionThatFailsLosesNothing) {
  MemoryLog file;
  IndexLog log(file, kOwner, "index", kMinCompact);
  file.fail_replaces = 2;
  for (std::uint64_t i = 1; i <= 100; ++i) ASSERT_EQ(append(log, stores(i % 4, i)), Status::ok);
  EXPECT_EQ(log.counters().failed_compactions, 2u);
  EXPECT_GT(log.counters().compactions, 0u);
  EXPECT_EQ(reopened(file).size(), 4u);
}

TEST(IndexLog, ALogThatCannotBeReadBackIsNotReplaced) {
  MemoryLog file;
  IndexLog log(file, kOwner, "index", kMinCompact);
  ASSERT_EQ(append(log, stores(1, 1)), Status::ok);
  const std::byte wrong[] = {std::byte{0x55}};
  ASSERT_EQ(file.write(kIndexRecordBytes + 20, wrong), Status::ok);
  for (std::uint64_t i = 2; i <= 20; ++i) ASSERT_EQ(append(log, stores(1, i)), Status::ok);
  EXPECT_GT(log.counters().failed_compactions, 0u);
  EXPECT_EQ(log.counters().compactions, 0u);
}

TEST(IndexLog, ForeignAndDamagedFiles) {
  const std::vector<StoredPage> pages{numbered_stored(1, 1), numbered_stored(2, 2)};
  const std::vector<std::byte> whole = write_index(kOwner, pages, 3);
  const auto says = [](std::span<const std::byte> log, const ContentId& owner) -> std::string {
    try {
      (void)parse_index(log, owner, "here");
    } catch (const Error& error) {
      return error.what();
    }
    return "fine";
  };
  EXPECT_EQ(says(whole, kOwner), "fine");
  EXPECT_NE(says(whole, {{1, 2, 3, 5}}).find("here: pages of another owner"), std::string::npos);
  const std::vector<std::byte> diary(500, std::byte{'a'});
  EXPECT_NE(says(diary, kOwner).find("here: not an index"), std::string::npos);
  for (std::size_t length = 0; length < whole.size(); ++length) {
    const RecoveredIndex cut = parse_index(std::span(whole).first(length), kOwner, "here");
    const auto records = length / static_cast<std::size_t>(kIndexRecordBytes);
    ASSERT_EQ(cut.pages.size(), records == 0 ? 0 : records - 1);
    ASSERT_EQ(cut.read_bytes + cut.lost_bytes, static_cast<Bytes>(length));
  }
}

// Every acknowledged record survives, in the order given, whatever part of the rest does.
TEST(IndexLog, SurvivesLossesOfPower) {
  for (std::uint64_t seed = 1; seed <= 300; ++seed) {
    SCOPED_TRACE(seed);
    std::mt19937_64 random(seed);
    MemoryLog file;
    std::map<std::uint64_t, std::uint64_t> acknowledged;  // number to generation
    std::uint64_t generation = 1;
    for (int life = 0; life < 4; ++life) {
      IndexLog log(file, kOwner, "index", kMinCompact);
      RecoveredIndex found = log.take_recovered();
      std::map<std::uint64_t, std::uint64_t> recovered;
      for (const StoredPage& page : found.pages)
        recovered[static_cast<std::uint64_t>(page.extent.offset) / 8192] = page.generation;
      ASSERT_EQ(recovered, acknowledged);
      generation = std::max(generation, found.next_generation);
      for (std::uint64_t steps = random() % 30; steps > 0; --steps) {
        std::vector<IndexRecord> batch;
        auto after = acknowledged;
        for (std::uint64_t records = 1 + random() % 3; records > 0; --records) {
          const std::uint64_t number = random() % 6;
          if (const auto held = after.find(number); held != after.end()) {
            batch.push_back(erases(number, held->second));
            after.erase(held);
          } else {
            batch.push_back(stores(number, generation));
            after[number] = generation++;
          }
        }
        file.fail_writes = random() % 8 == 0;
        file.fail_replaces = random() % 4 == 0;
        if (log.append(batch) == Status::ok) acknowledged = after;
      }
      // A batch that never came to be synced.
      const auto tail = write_index(kOwner, std::vector(3, numbered_stored(9, 1)), 1);
      ASSERT_EQ(file.write(log.bytes(), tail), Status::ok);
      file.fail_writes = file.fail_replaces = 0;
      file.lose_power(random);
    }
  }
}

}  // namespace
}  // namespace modalkv
