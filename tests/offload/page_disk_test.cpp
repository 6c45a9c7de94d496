#include "offload/page_disk.hpp"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <set>

#include "offload/fault_block_file.hpp"
#include "offload/page_seal.hpp"
#include "tests/offload/disk_pages.hpp"
#include "tests/offload/temporary_folder.hpp"

namespace modalkv {
namespace {

class PageDisks : public ::testing::Test {
 protected:
  PageDiskConfig config(Bytes blocks = 256) const { return small_disk(folder_.path(), blocks); }
  // The pages' file is made to fail.
  std::unique_ptr<PageDisk> faulty(const BlockFaultPlan& plan, PageDiskConfig config) {
    DiskFiles files =
        open_disk_files(config.directory, config.capacity_bytes, config.max_transfers);
    auto fault = std::make_unique<FaultBlockFile>(std::move(files.pages.file), plan);
    files.pages.file = std::move(fault);
    return std::make_unique<PageDisk>(config, std::move(files));
  }
  std::unique_ptr<PageDisk> faulty(const BlockFaultPlan& plan) { return faulty(plan, config()); }
  void flip(const char* file, Bytes at) {
    std::fstream stream(folder_ / file, std::ios::in | std::ios::out | std::ios::binary);
    stream.seekg(at);
    const char byte = static_cast<char>(stream.get());
    stream.seekp(at);
    stream.put(static_cast<char>(byte ^ 16));
  }

  TemporaryFolder folder_;
};

TEST_F(PageDisks, ServesWhatWasStoredAlsoAfterReopening) {
  {
    PageDisk disk(config());
    for (std::uint64_t i = 0; i < 20; ++i) ASSERT_EQ(store(disk, i, i + 100), Status::ok);
    for (std::uint64_t i = 0; i < 20; ++i) {
      const Loaded loaded = load(disk, i);
      ASSERT_EQ(loaded.status, Status::ok);
      ASSERT_EQ(loaded.page, numbered_page(i, i + 100));
    }
    EXPECT_EQ(outcome(disk, disk.erase(numbered_key(7))), Status::ok);
    EXPECT_FALSE(disk.contains(numbered_key(7)));
  }
  PageDisk disk(config());
  EXPECT_EQ(disk.counters().recovered, 19u);
  EXPECT_EQ(disk.pages(), 19u);
  EXPECT_EQ(disk.keys().size(), 19u);
  for (std::uint64_t i = 0; i < 20; ++i) {
    const Loaded loaded = load(disk, i);
    ASSERT_EQ(loaded.status, i == 7 ? Status::rejected : Status::ok);
    ASSERT_TRUE(i == 7 || loaded.page == numbered_page(i, i + 100));
  }
  EXPECT_NE(disk.description().find("19 pages"), std::string::npos) << disk.description();
}

TEST_F(PageDisks, RefusesWhatItCannotTake) {
  PageDisk disk(config());
  const auto page = numbered_page(0, 0);
  EXPECT_EQ(disk.store({{}, 0, 0, small_shape()}, page).status, Status::rejected) << "unique";
  EXPECT_EQ(disk.store({{{1, 0, 0, 0}}, -1, 0, small_shape()}, page).status, Status::rejected);
  EXPECT_EQ(disk.store({{{1, 0, 0, 0}}, 0, 0, {15, 1, 64, {}}}, page).status, Status::rejected);
  EXPECT_EQ(disk.store(numbered_key(1), page).status, Status::rejected) << "another shape's bytes";
  const PageShape huge{256, 8, 128, both(fp16())};
  const std::vector<std::byte> huge_page(static_cast<std::size_t>(page_bytes(huge)));
  EXPECT_EQ(disk.store({{{1, 0, 0, 0}}, 0, 0, huge}, huge_page).status, Status::rejected);
  std::vector<std::byte> into(page.size());
  EXPECT_EQ(disk.load(numbered_key(0), into).status, Status::rejected);
  EXPECT_EQ(disk.erase(numbered_key(0)).status, Status::rejected);
  ASSERT_EQ(store(disk, 0), Status::ok);
  EXPECT_EQ(store(disk, 0), Status::rejected) << "already here";
  into.pop_back();
  EXPECT_EQ(disk.load(numbered_key(0), into).status, Status::rejected);
  EXPECT_FALSE(disk.next_completion(0)) << "what was refused has no completion";
}

TEST_F(PageDisks, ADamagedPageIsNotStored) {
  PageDisk disk(config());
  auto page = numbered_page(0, 0);
  page[100] ^= std::byte{1};
  EXPECT_EQ(outcome(disk, disk.store(numbered_key(0), page)), Status::checksum);
  EXPECT_FALSE(disk.contains(numbered_key(0)));
  EXPECT_EQ(store(disk, 0), Status::ok) << "its key and space are free again";
}

TEST_F(PageDisks, OneChangeOfAKeyAtATime) {
  PageDisk disk(config());
  const auto page = numbered_page(0, 0);
  const Submitted stored = disk.store(numbered_key(0), page);
  EXPECT_EQ(disk.store(numbered_key(0), page).status, Status::busy);
  EXPECT_EQ(disk.erase(numbered_key(0)).status, Status::busy);
  EXPECT_FALSE(disk.contains(numbered_key(0)));
  EXPECT_EQ(outcome(disk, stored), Status::ok);
  const Submitted erased = disk.erase(numbered_key(0));
  EXPECT_EQ(disk.erase(numbered_key(0)).status, Status::busy);
  EXPECT_EQ(disk.store(numbered_key(0), page).status, Status::busy);
  EXPECT_FALSE(disk.contains(numbered_key(0))) << "at once";
  EXPECT_EQ(outcome(disk, erased), Status::ok);
  EXPECT_GE(disk.counters().busy, 4u);
}

TEST_F(PageDisks, TooManyOperationsAreRefused) {
  PageDisk disk(config());
  const auto page = numbered_page(0, 0);
  std::vector<std::vector<std::byte>> pages;
  for (std::uint64_t i = 0; i < 32; ++i) pages.push_back(numbered_page(i, 0));
  for (std::uint64_t i = 0; i < 32; ++i)
    ASSERT_EQ(disk.store(numbered_key(i), pages[i]).status, Status::ok);
  EXPECT_EQ(disk.store(numbered_key(32), page).status, Status::busy);
  std::set<std::uint64_t> tickets;
  while (const auto completion = disk.next_completion(kLongWait)) {
    EXPECT_EQ(completion->status, Status::ok);
    EXPECT_TRUE(tickets.insert(completion->ticket.id).second);
  }
  EXPECT_EQ(tickets.size(), 32u);
}

TEST_F(PageDisks, AFullDiskSaysSoUntilSomethingIsErased) {
  PageDisk disk(config(16));
  std::uint64_t stored = 0;
  while (true) {
    const Status status = store(disk, 2 * stored);
    if (status == Status::no_space) break;
    ASSERT_EQ(status, Status::ok);
    ++stored;
  }
  EXPECT_EQ(static_cast<Bytes>(stored), 16 * kBlockBytes / stored_bytes(small_shape()));
  EXPECT_EQ(disk.counters().no_space, 1u);
  EXPECT_EQ(outcome(disk, disk.erase(numbered_key(0))), Status::ok);
  EXPECT_EQ(store(disk, 2 * stored), Status::ok);
  EXPECT_EQ(load(disk, 2 * stored).page, numbered_page(2 * stored, 0));
}

TEST_F(PageDisks, TheIndexIsBoundedToo) {
  PageDiskConfig few = config();
  few.max_pages = 3;
  PageDisk disk(few);
  for (std::uint64_t i = 0; i < 3; ++i) ASSERT_EQ(store(disk, i), Status::ok);
  EXPECT_EQ(store(disk, 3), Status::no_space);
}

TEST_F(PageDisks, BelongsToOneAtATime) {
  {
    PageDisk disk(config());
    try {
      PageDisk second(config());
      FAIL() << "a directory was opened twice";
    } catch (const Error& error) {
      EXPECT_NE(std::string_view(error.what()).find("in use by another"), std::string_view::npos);
    }
    EXPECT_EQ(store(disk, 0), Status::ok);
  }
  EXPECT_EQ(PageDisk(config()).pages(), 1u);
}

TEST_F(PageDisks, RefusesWhatIsNotItsOwn) {
  {
    PageDisk disk(config());
    ASSERT_EQ(store(disk, 0), Status::ok);
  }
  PageDiskConfig other = config();
  other.owner = {{8, 7, 7, 7}};
  EXPECT_THROW(PageDisk{other}, Error);
  EXPECT_EQ(PageDisk(config()).pages(), 1u) << "nothing was lost by that";
  std::ofstream(folder_ / "index") << "dear diary";
  EXPECT_THROW(PageDisk{config()}, Error);
  PageDiskConfig nowhere = config();
  nowhere.directory = folder_ / "lock";
  EXPECT_THROW(PageDisk{nowhere}, Error);
  nowhere = config(1);
  EXPECT_THROW(PageDisk{nowhere}, Error);
}

TEST_F(PageDisks, BitFlipsInPagesAreNeverServed) {
  for (Bytes at = 0; at < stored_bytes(small_shape()); at += 97) {
    SCOPED_TRACE(at);
    {
      PageDisk disk(config());
      if (!disk.contains(numbered_key(0))) {
        ASSERT_EQ(store(disk, 0), Status::ok);
      }
    }
    flip("pages", at);  // the first page lies first
    PageDisk disk(config());
    const Loaded loaded = load(disk, 0);
    const bool padding =
        at >= page_bytes(small_shape()) && at < stored_bytes(small_shape()) - kPageSealBytes;
    ASSERT_EQ(loaded.status, padding ? Status::ok : Status::checksum);
    ASSERT_TRUE(!padding || loaded.page == numbered_page(0, 0));
    ASSERT_EQ(disk.contains(numbered_key(0)), padding) << "given up, to be stored again";
    ASSERT_EQ(disk.counters().dropped, padding ? 0u : 1u);
    while (disk.counters().stuck > 0) (void)disk.next_completion(0);  // the index forgets it, too
    if (padding) flip("pages", at);
  }
}

TEST_F(PageDisks, BitFlipsInTheIndexLoseWhatComesAfterAndServeNothingWrong) {
  {
    PageDisk disk(config());
    for (std::uint64_t i = 0; i < 5; ++i) ASSERT_EQ(store(disk, i), Status::ok);
  }
  std::filesystem::copy_file(folder_ / "index", folder_ / "kept");
  std::uint64_t lost = 0;
  for (Bytes at = 0; at < 6 * kIndexRecordBytes; at += 13) {
    SCOPED_TRACE(at);
    std::filesystem::copy_file(folder_ / "kept", folder_ / "index",
                               std::filesystem::copy_options::overwrite_existing);
    flip("index", at);
    try {
      PageDisk disk(config());
      lost += 5 - disk.pages();
      EXPECT_LT(disk.pages(), 5u);
      EXPECT_GT(disk.counters().lost_index_bytes, 0);
      for (std::uint64_t i = 0; i < 5; ++i) {
        const Loaded loaded = load(disk, i);
        ASSERT_TRUE(loaded.status == Status::rejected || loaded.page == numbered_page(i, 0));
      }
    } catch (const Error& error) {
      ASSERT_LT(at, 8) << error.what();  // no longer a file of ours
    }
  }
  EXPECT_GT(lost, 0u);
}

// The index is made to lie: it swaps the places of two pages. Both are known by their seals.
TEST_F(PageDisks, ASwappedPageIsNotServed) {
  {
    PageDisk disk(config());
    ASSERT_EQ(store(disk, 0), Status::ok);
    ASSERT_EQ(store(disk, 2), Status::ok);
  }
  const auto file = open_log_file(folder_.path(), "index");
  std::vector<StoredPage> pages = parse_index(file->read(), config().owner, "index").pages;
  ASSERT_EQ(pages.size(), 2u);
  std::swap(pages[0].extent, pages[1].extent);
  ASSERT_EQ(file->replace(write_index(config().owner, pages, 100)), Status::ok);
  PageDisk disk(config());
  EXPECT_EQ(disk.pages(), 2u);
  EXPECT_EQ(load(disk, 0).status, Status::checksum);
  EXPECT_EQ(load(disk, 2).status, Status::checksum);
}

TEST_F(PageDisks, PagesOutOfPlaceAreGivenUpWhenOpened) {
  {
    PageDisk disk(config());
    for (std::uint64_t i = 0; i < 8; i += 2) ASSERT_EQ(store(disk, i), Status::ok);
  }
  const auto file = open_log_file(folder_.path(), "index");
  std::vector<StoredPage> pages = parse_index(file->read(), config().owner, "index").pages;
  pages[0].extent.offset = pages[3].extent.offset;  // the newer one stays
  pages[1].extent.offset = 1'000'000 * kBlockBytes;
  pages[2].extent.bytes += kBlockBytes;
  ASSERT_EQ(file->replace(write_index(config().owner, pages, 100)), Status::ok);
  for (int times = 0; times < 2; ++times) {
    PageDisk disk(config());
    EXPECT_EQ(disk.pages(), 1u);
    EXPECT_EQ(disk.counters().misplaced, times == 0 ? 3u : 0u);
    EXPECT_EQ(load(disk, 6).page, numbered_page(6, 0));
  }
}

TEST_F(PageDisks, ASmallerCapacityKeepsWhatFits) {
  {
    PageDisk disk(config(64));
    for (std::uint64_t i = 0; i < 8; i += 2) ASSERT_EQ(store(disk, i), Status::ok);
  }
  PageDisk disk(config(2 * stored_bytes(small_shape()) / kBlockBytes));
  EXPECT_EQ(disk.pages(), 2u);
  EXPECT_EQ(load(disk, 0).page, numbered_page(0, 0));
}

TEST_F(PageDisks, EveryFaultOfAWriteHasItsOutcome) {
  for (const auto& [plan, expected] :
       {std::pair<BlockFaultPlan, Status>{{.write_error = 1}, Status::io_error},
        {{.no_space = 1}, Status::no_space},
        {{.sync_error = 1}, Status::io_error}}) {
    const auto disk = faulty(plan);
    const Bytes free_bytes = disk->free_bytes();
    EXPECT_EQ(store(*disk, 0), expected);
    EXPECT_FALSE(disk->contains(numbered_key(0)));
    EXPECT_EQ(disk->free_bytes(), free_bytes);
  }
  EXPECT_EQ(PageDisk(config()).pages(), 0u);
}

TEST_F(PageDisks, EveryFaultOfAReadHasItsOutcome) {
  ASSERT_EQ(store(*std::make_unique<PageDisk>(config()), 0), Status::ok);
  for (const BlockFaultPlan& plan : {BlockFaultPlan{.read_error = 1}, {.short_read = 1}}) {
    const auto disk = faulty(plan);
    EXPECT_EQ(load(*disk, 0).status, Status::io_error);
    EXPECT_TRUE(disk->contains(numbered_key(0))) << "it may read well the next time";
  }
  const auto disk = faulty({.bit_flip = 1});
  EXPECT_EQ(load(*disk, 0).status, Status::checksum);
  EXPECT_FALSE(disk->contains(numbered_key(0)));
}

TEST_F(PageDisks, AFlipOnTheWayToTheDiskIsFoundWhenLoaded) {
  {
    const auto disk = faulty({.bit_flip = 1});
    EXPECT_EQ(store(*disk, 0), Status::ok);
  }
  EXPECT_EQ(load(*std::make_unique<PageDisk>(config()), 0).status, Status::checksum);
}

TEST_F(PageDisks, ALostCompletionEndsInATimeoutAndTouchesNothingLater) {
  ASSERT_EQ(store(*std::make_unique<PageDisk>(config()), 0), Status::ok);
  PageDiskConfig hasty = config();
  hasty.timeout_ns = 50 * kMillisecond;
  hasty.max_operations = 3;
  DiskFiles files = open_disk_files(hasty.directory, hasty.capacity_bytes, hasty.max_transfers);
  auto owned =
      std::make_unique<FaultBlockFile>(std::move(files.pages.file), BlockFaultPlan{.lost = 1});
  const FaultBlockFile& fault = *owned;
  files.pages.file = std::move(owned);
  PageDisk disk(hasty, std::move(files));
  // An operation may also time out before it is begun, and then ends: another one, until one is
  // lost.
  const auto until_lost = [&](std::uint64_t count, const auto& operation) {
    while (fault.injected().lost < count) {
      const Status status = operation();
      ASSERT_TRUE(status == Status::timeout || status == Status::busy) << name(status);
      (void)disk.next_completion(0);
    }
  };
  until_lost(1, [&] { return store(disk, 2); });
  EXPECT_EQ(store(disk, 2), Status::busy) << "nobody knows what became of it";
  until_lost(3, [&] { return load(disk, 0).status; });
  EXPECT_EQ(load(disk, 0).status, Status::busy) << "all operations are stuck";
  EXPECT_EQ(disk.counters().stuck, 3u);
  EXPECT_GE(disk.counters().timeouts, 3u);
}

TEST_F(PageDisks, WhatIsCancelledIsToldSoOnceAndOnlyOnce) {
  PageDisk disk(config());
  std::vector<std::vector<std::byte>> pages;
  for (std::uint64_t i = 0; i < 30; ++i) pages.push_back(numbered_page(i, 0));
  std::vector<Ticket> tickets;
  for (std::uint64_t i = 0; i < 30; ++i) {
    tickets.push_back(disk.store(numbered_key(i), pages[i]).ticket);
    disk.cancel(tickets.back());
  }
  for (const Ticket ticket : tickets) disk.cancel(ticket);
  disk.cancel({});
  std::set<std::uint64_t> seen;
  std::uint64_t cancelled = 0;
  while (const auto completion = disk.next_completion(kLongWait)) {
    EXPECT_TRUE(seen.insert(completion->ticket.id).second);
    EXPECT_TRUE(completion->status == Status::ok || completion->status == Status::cancelled);
    cancelled += completion->status == Status::cancelled;
  }
  EXPECT_EQ(seen.size(), 30u);
  EXPECT_GT(cancelled, 0u);
  EXPECT_EQ(disk.counters().cancelled, cancelled);
}

}  // namespace
}  // namespace modalkv
