// Random histories of a disk that fails in every way, is closed in the middle, and loses power.
#include <gtest/gtest.h>

#include "offload/fault_block_file.hpp"
#include "tests/offload/disk_history.hpp"
#include "tests/offload/memory_disk.hpp"
#include "tests/offload/temporary_folder.hpp"

namespace modalkv {
namespace {

PageDiskConfig cramped(const std::string& directory) {
  PageDiskConfig config = small_disk(directory, 48);  // not all numbers fit
  config.max_operations = 12;
  config.max_transfers = 4;
  return config;
}

struct Weather {
  const char* name;
  BlockFaultPlan plan;
  std::vector<Status> seen;  ///< outcomes that have to come up

  friend void PrintTo(const Weather& weather, std::ostream* out) { *out << weather.name; }
};

class Histories : public ::testing::TestWithParam<Weather> {};

INSTANTIATE_TEST_SUITE_P(
    Of, Histories,
    ::testing::Values(Weather{"fair", {}, {Status::ok, Status::cancelled}},
                      Weather{"late", {.late = 0.2}, {Status::ok}},
                      Weather{"errors",
                              {.read_error = 0.1,
                               .short_read = 0.1,
                               .write_error = 0.1,
                               .no_space = 0.1,
                               .sync_error = 0.1},
                              {Status::ok, Status::io_error, Status::no_space}},
                      Weather{"flips", {.bit_flip = 0.1}, {Status::ok, Status::checksum}},
                      Weather{"lost", {.late = 0.1, .lost = 0.05}, {Status::ok, Status::timeout}},
                      Weather{"all",
                              {.read_error = 0.05,
                               .short_read = 0.05,
                               .bit_flip = 0.05,
                               .write_error = 0.05,
                               .no_space = 0.05,
                               .late = 0.1,
                               .lost = 0.01,
                               .sync_error = 0.05},
                              {Status::ok, Status::io_error, Status::checksum}}),
    [](const auto& tested) { return tested.param.name; });

// Writes that fail leave half a page behind, so flips and errors damage nothing that was stored.
TEST_P(Histories, ServeNothingWrongAndLoseNothingAcknowledged) {
  const BlockFaultPlan& plan = GetParam().plan;
  const std::uint64_t seed = 5;
  SCOPED_TRACE(seed);
  TemporaryFolder folder;
  PageDiskConfig config = cramped(folder.path());
  if (plan.lost > 0) config.timeout_ns = 20 * kMillisecond;
  DiskHistory history(seed, plan.bit_flip > 0);
  for (int life = 0; life < 4 && !HasFatalFailure(); ++life) {
    DiskFiles files =
        open_disk_files(config.directory, config.capacity_bytes, config.max_transfers,
                        life % 2 == 0 ? DiskBackend::automatic : DiskBackend::threads);
    BlockFaultPlan seeded = plan;
    seeded.seed = seed * 100 + static_cast<std::uint64_t>(life);
    files.pages.file = std::make_unique<FaultBlockFile>(std::move(files.pages.file), seeded);
    {
      PageDisk disk(config, std::move(files));
      history.opened(disk);
      for (int step = 0; step < 1500 && !HasFatalFailure(); ++step) history.step(disk);
      if (life % 2 == 0) history.drain(disk);
    }
    history.closed();
  }
  for (const Status status : GetParam().seen)
    EXPECT_GT(history.outcomes[status], 0) << name(status) << " never came up";
}

void lose_power_often(std::uint64_t seeds) {
  for (std::uint64_t seed = 1; seed <= seeds; ++seed) {
    SCOPED_TRACE(seed);
    const PageDiskConfig config = cramped("memory");
    DiskHistory history(seed, false);
    MemoryDisk machine(config.capacity_bytes);
    for (int life = 0; life < 4; ++life) {
      MemoryDisk after(0);
      {
        PageDisk disk(config, machine.files(config.max_transfers));
        history.opened(disk);
        for (std::uint64_t steps = history.random() % 400; steps > 0; --steps) {
          history.step(disk);
          if (::testing::Test::HasFatalFailure()) return;
        }
        after = machine;  // what has been told by now was told before
      }
      history.closed();
      after.lose_power(history.random);
      machine = after;
    }
  }
}

TEST(PowerLoss, LeavesWhatWasAcknowledged) {
  lose_power_often(30);
}

TEST(PowerLossNightly, LeavesWhatWasAcknowledged) {
  lose_power_often(2000);
}

}  // namespace
}  // namespace modalkv
