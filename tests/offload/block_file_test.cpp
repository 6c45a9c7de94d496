#include "offload/block_file.hpp"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <random>
#include <thread>
#include <vector>

#include "offload/fault_block_file.hpp"
#include "tests/offload/aligned_memory.hpp"
#include "tests/offload/temporary_folder.hpp"

namespace modalkv {
namespace {

using Kind = BlockTransfer::Kind;

constexpr Nanos kLong = 30 * kSecond;  // a bound that is not expected to be met
constexpr Bytes kFileBlocks = 64;
constexpr Bytes kFileBytes = kFileBlocks * kBlockBytes;

OpenedBlockFile open_or_skip(DiskBackend backend, const std::string& path,
                             std::size_t max_in_flight = 8) {
  try {
    return open_block_file(path, kFileBytes, max_in_flight, backend);
  } catch (const Error& error) {
    if (std::string_view(error.what()).find("no io_uring here") == std::string_view::npos) throw;
    return {};
  }
}

class BlockFiles : public ::testing::TestWithParam<DiskBackend> {
 protected:
  void SetUp() override {
    opened_ = open_or_skip(GetParam(), folder_ / "file");
    if (!opened_.file) GTEST_SKIP() << "io_uring is not allowed here";
  }
  BlockFile& file() { return *opened_.file; }
  BlockCompletion perform(const BlockTransfer& transfer) {
    EXPECT_EQ(file().submit(transfer), Status::ok);
    const auto completion = file().next_completion(kLong);
    EXPECT_TRUE(completion.has_value());
    return completion.value_or(BlockCompletion{});
  }

  TemporaryFolder folder_;
  OpenedBlockFile opened_;
};

INSTANTIATE_TEST_SUITE_P(Backends, BlockFiles,
                         ::testing::Values(DiskBackend::io_uring, DiskBackend::threads),
                         [](const auto& tested) {
                           return tested.param == DiskBackend::io_uring ? "io_uring" : "threads";
                         });

TEST_P(BlockFiles, SaysWhatItIs) {
  EXPECT_EQ(opened_.backend, GetParam());
  EXPECT_NE(opened_.description.find(opened_.direct ? ", direct I/O" : "page cache"),
            std::string::npos)
      << opened_.description;
}

// Random transfers, many at a time, against a copy in memory; those in flight never overlap.
TEST_P(BlockFiles, HoldsWhatWasWritten) {
  const unsigned seed = 7;
  SCOPED_TRACE(seed);
  std::mt19937_64 random(seed);
  std::vector<std::byte> expected(static_cast<std::size_t>(kFileBytes));
  constexpr Bytes kLane = kFileBytes / 8;
  AlignedMemory memory(kFileBytes);  // lane i of it for lane i of the file
  std::vector<BlockTransfer> lanes(8);
  std::size_t reads = 0, in_flight = 0;
  std::vector<bool> idle(8, true);
  for (int started = 0; started < 600 || in_flight > 0;) {
    const std::uint64_t lane = random() % 8;
    if (idle[lane] && started < 600) {
      const auto blocks = static_cast<Bytes>(1 + random() % 8);
      const auto first = static_cast<Bytes>(random() % static_cast<std::uint64_t>(9 - blocks));
      BlockTransfer& transfer = lanes[lane];
      const Bytes at = static_cast<Bytes>(lane) * kLane + first * kBlockBytes;
      transfer = {random() % 2 == 0 ? Kind::read : Kind::write, lane, at, blocks * kBlockBytes,
                  memory.data() + at};
      if (transfer.kind == Kind::write)
        for (Bytes i = 0; i < transfer.bytes; i += 64)
          transfer.memory[i] = static_cast<std::byte>(random());
      ASSERT_EQ(file().submit(transfer), Status::ok);
      idle[lane] = false;
      ++started, ++in_flight;
    } else {
      const auto completion = file().next_completion(in_flight == 0 ? 0 : kLong);
      ASSERT_EQ(completion.has_value(), in_flight > 0);
      if (!completion) continue;
      ASSERT_EQ(completion->status, Status::ok);
      const BlockTransfer& transfer = lanes[completion->tag];
      ASSERT_EQ(completion->bytes, transfer.bytes);
      const std::span mirror(&expected[static_cast<std::size_t>(transfer.offset)],
                             static_cast<std::size_t>(transfer.bytes));
      if (transfer.kind == Kind::write) {
        std::memcpy(mirror.data(), transfer.memory, mirror.size());
      } else {
        ++reads;
        ASSERT_TRUE(std::equal(mirror.begin(), mirror.end(), transfer.memory));
      }
      idle[completion->tag] = true;
      --in_flight;
    }
  }
  EXPECT_GT(reads, 200u);
  EXPECT_EQ(file().sync(), Status::ok);
}

TEST_P(BlockFiles, AFullQueueSaysBusyAndTakesNothing) {
  AlignedMemory memory(kBlockBytes * 8);
  for (std::uint64_t tag = 0; tag < 8; ++tag)
    ASSERT_EQ(file().submit({Kind::read, tag, 0, kBlockBytes,
                             memory.data() + static_cast<Bytes>(tag) * kBlockBytes}),
              Status::ok);
  EXPECT_EQ(file().submit({Kind::read, 8, 0, kBlockBytes, memory.data()}), Status::busy);
  std::vector<bool> seen(8);
  for (int i = 0; i < 8; ++i) {
    const auto completion = file().next_completion(kLong);
    ASSERT_TRUE(completion);
    EXPECT_FALSE(seen.at(completion->tag));
    seen[completion->tag] = true;
  }
  EXPECT_EQ(perform({Kind::read, 8, 0, kBlockBytes, memory.data()}).tag, 8u);
}

TEST_P(BlockFiles, RejectsWhatIsNotWholeBlocks) {
  AlignedMemory memory(kBlockBytes * 2);
  const BlockTransfer good{Kind::read, 0, 0, kBlockBytes, memory.data()};
  BlockTransfer bad[5] = {good, good, good, good, good};
  bad[0].offset = 512;
  bad[1].offset = -kBlockBytes;
  bad[2].bytes = 0;
  bad[3].memory += 64;
  bad[4].memory = nullptr;
  for (const BlockTransfer& transfer : bad) EXPECT_EQ(file().submit(transfer), Status::rejected);
  EXPECT_EQ(file().in_flight(), 0u);
}

TEST_P(BlockFiles, TheEndOfTheFileIsAShortRead) {
  AlignedMemory memory(kBlockBytes * 2);
  const BlockCompletion completion =
      perform({Kind::read, 0, kFileBytes - kBlockBytes, 2 * kBlockBytes, memory.data()});
  EXPECT_EQ(completion.status, Status::ok);
  EXPECT_EQ(completion.bytes, kBlockBytes);
}

TEST_P(BlockFiles, WakingEndsAWaitEarlyAndOnce) {
  std::jthread waker([&] { file().wake(); });
  EXPECT_FALSE(file().next_completion(kLong));
  EXPECT_FALSE(file().next_completion(0));
}

TEST_P(BlockFiles, IsClosedWithTransfersInFlight) {
  AlignedMemory memory(kFileBytes);
  std::memset(memory.data(), 0x5a, memory.span().size());
  for (std::uint64_t tag = 0; tag < 8; ++tag) {
    const Bytes at = static_cast<Bytes>(tag) * kFileBytes / 8;
    ASSERT_EQ(file().submit({Kind::write, tag, at, kFileBytes / 8, memory.data() + at}),
              Status::ok);
  }
  opened_.file.reset();  // under ASan: nobody writes to or reads from `memory` afterwards
}

// For the rest of the process, as containers' seccomp filters and some file systems do.
void forbid_io_uring_and_direct_io() {
  constexpr std::uint32_t kNumber = offsetof(seccomp_data, nr);
  constexpr std::uint32_t kFlags = offsetof(seccomp_data, args) + 2 * sizeof(std::uint64_t);
  sock_filter filter[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, kNumber),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_io_uring_setup, 3, 0),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_openat, 0, 3),
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, kFlags),
      BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, O_DIRECT, 2, 1),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EINVAL),
  };
  const sock_fprog program{static_cast<unsigned short>(std::size(filter)), filter};
  if (::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 ||
      ::prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) != 0)
    std::_Exit(2);
}

bool serves_without_both() {
  forbid_io_uring_and_direct_io();
  TemporaryFolder folder;
  EXPECT_THROW((void)open_block_file(folder / "file", kFileBytes, 2, DiskBackend::io_uring), Error);
  const OpenedBlockFile opened = open_block_file(folder / "file", kFileBytes, 2);
  EXPECT_EQ(opened.backend, DiskBackend::threads);
  EXPECT_FALSE(opened.direct);
  EXPECT_NE(opened.description.find("no io_uring here"), std::string::npos) << opened.description;
  EXPECT_NE(opened.description.find("page cache"), std::string::npos) << opened.description;
  const AlignedMemory memory(kBlockBytes);
  std::memset(memory.data(), 1, memory.span().size());
  EXPECT_EQ(opened.file->submit({Kind::write, 3, 0, kBlockBytes, memory.data()}), Status::ok);
  EXPECT_EQ(opened.file->next_completion(kLong).value().status, Status::ok);
  return !::testing::Test::HasFailure();
}

TEST(BlockFile, ServesWhereNeitherIoUringNorDirectIoIsAllowed) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_EXIT(std::_Exit(serves_without_both() ? 0 : 1), ::testing::ExitedWithCode(0), "");
}

TEST(BlockFile, AutomaticFindsSomething) {
  TemporaryFolder folder;
  const OpenedBlockFile opened = open_block_file(folder / "file", kFileBytes, 1);
  EXPECT_NE(opened.backend, DiskBackend::automatic);
}

TEST(BlockFile, WhatCannotBeOpenedIsSaid) {
  TemporaryFolder folder;
  EXPECT_THROW((void)open_block_file(folder / "no/file", kFileBytes, 1), Error);
  EXPECT_THROW((void)open_block_file(folder.path(), kFileBytes, 1), Error);
  EXPECT_THROW((void)open_block_file(folder / "file", kFileBytes + 1, 1), Error);
  EXPECT_THROW((void)open_block_file("/dev/zero", kFileBytes, 1), Error);
}

class FaultBlockFiles : public ::testing::Test {
 protected:
  FaultBlockFile with(const BlockFaultPlan& plan) {
    return {open_block_file(folder_ / "file", kFileBytes, 8, DiskBackend::threads).file, plan};
  }
  BlockCompletion perform(BlockFile& file, Kind kind, Bytes blocks = 2) {
    EXPECT_EQ(file.submit({kind, 1, 0, blocks * kBlockBytes, memory_.data()}), Status::ok);
    return file.next_completion(kLong).value_or(BlockCompletion{0, Status::timeout, 0});
  }
  TemporaryFolder folder_;
  AlignedMemory memory_{4 * kBlockBytes};
};

TEST_F(FaultBlockFiles, EachFaultDoesWhatItsNameSays) {
  std::memset(memory_.data(), 7, memory_.span().size());
  {
    FaultBlockFile file = with({.no_space = 1});
    EXPECT_EQ(perform(file, Kind::write).status, Status::no_space);
    EXPECT_EQ(perform(file, Kind::read).status, Status::ok);
    EXPECT_EQ(memory_.data()[0], std::byte{0}) << "nothing was written";
  }
  std::memset(memory_.data(), 7, memory_.span().size());
  {
    FaultBlockFile file = with({.write_error = 1});
    EXPECT_EQ(perform(file, Kind::write).status, Status::io_error);
    EXPECT_EQ(perform(file, Kind::read).status, Status::ok);
    EXPECT_EQ(memory_.data()[kBlockBytes - 1], std::byte{7});
    EXPECT_EQ(memory_.data()[kBlockBytes], std::byte{0}) << "half was written";
  }
  {
    FaultBlockFile file = with({.short_read = 1});
    EXPECT_EQ(perform(file, Kind::read).bytes, kBlockBytes);
    EXPECT_EQ(file.injected().short_read, 1u);
  }
  {
    FaultBlockFile file = with({.read_error = 1, .sync_error = 1});
    EXPECT_EQ(perform(file, Kind::read).status, Status::io_error);
    EXPECT_EQ(file.sync(), Status::io_error);
    EXPECT_EQ(perform(file, Kind::write).status, Status::ok);
  }
  std::memset(memory_.data(), 7, memory_.span().size());
  const auto wrong_bytes = [&] {
    return memory_.bytes() -
           std::count(memory_.data(), memory_.data() + memory_.bytes(), std::byte{7});
  };
  {
    FaultBlockFile file = with({.bit_flip = 1});
    EXPECT_EQ(perform(file, Kind::write, 4).status, Status::ok);
    EXPECT_EQ(wrong_bytes(), 0) << "what was written from stays whole";
  }
  FaultBlockFile file = with({});
  EXPECT_EQ(perform(file, Kind::read, 4).status, Status::ok);
  EXPECT_EQ(wrong_bytes(), 1);
}

TEST_F(FaultBlockFiles, LateCompletionsComeAfterOthersAndAllCome) {
  FaultBlockFile file = with({.seed = 3, .late = 0.3});
  for (std::uint64_t tag = 0; tag < 8; ++tag)
    ASSERT_EQ(file.submit({Kind::write, tag, 0, kBlockBytes, memory_.data()}), Status::ok);
  std::size_t seen = 0;
  while (file.in_flight() > 0)
    if (file.next_completion(kLong)) ++seen;
  EXPECT_EQ(seen, 8u);
  EXPECT_GT(file.injected().late, 0u);
}

TEST_F(FaultBlockFiles, ALostCompletionNeverComes) {
  FaultBlockFile file = with({.lost = 1});
  EXPECT_EQ(file.submit({Kind::read, 1, 0, kBlockBytes, memory_.data()}), Status::ok);
  EXPECT_FALSE(file.next_completion(100 * kMillisecond));
  EXPECT_EQ(file.in_flight(), 1u);
}

}  // namespace
}  // namespace modalkv
