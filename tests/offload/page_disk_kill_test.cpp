// A process that stores, loads and erases is killed at random moments. Whatever it was told is done
// is done, and nothing wrong is ever served.
#include <gtest/gtest.h>

#include <cstdlib>
#include <map>
#include <random>
#include <set>
#include <string>

#include "tests/offload/disk_history.hpp"
#include "tests/offload/temporary_folder.hpp"
#include "tests/offload/victim.hpp"

namespace modalkv {
namespace {

constexpr const char* kOrders = "MODALKV_DISK_VICTIM";
constexpr std::uint64_t kVersionsOfRound = 1'000'000;

PageDiskConfig disk_config(const std::string& directory, std::uint64_t round) {
  PageDiskConfig config = small_disk(directory, 48);
  config.backend = round % 2 == 0 ? DiskBackend::automatic : DiskBackend::threads;
  return config;
}

// Until it is killed.
void be_the_victim(const VictimOrders& orders) {
  PageDisk disk(disk_config(orders.directory, orders.round));
  DiskHistory history(orders.round, false);
  history.adopt(disk, orders.round * kVersionsOfRound);
  history.journal = [&](char event, std::uint64_t number, std::uint64_t version) {
    orders.tell({static_cast<std::uint64_t>(event), number, version});
  };
  orders.tell({kVictimRuns, 0, 0});
  while (!::testing::Test::HasFailure()) history.step(disk);
  orders.tell({kVictimIsWrong, 0, 0});
}

// What the victim's events allow to be found.
class Allowed {
 public:
  void learn(const VictimEvent& event) {
    Page& page = pages_[event.number];
    switch (event.event) {
      case 's':
        page.versions.insert(event.version);
        break;
      case 'S':
        page = {{event.version}, false};
        break;
      case 'e':
        page.may_be_absent = true;
        break;
      case 'E':
        page = {};
        break;
      default:
        EXPECT_EQ(event.event, kVictimRuns) << "the victim was served something wrong";
        break;
    }
  }
  void check_and_settle(std::uint64_t number, const std::optional<std::uint64_t>& found) {
    Page& page = pages_[number];
    if (found) {
      EXPECT_TRUE(page.versions.contains(*found)) << number << " in version " << *found;
      page = {{*found}, false};
    } else {
      EXPECT_TRUE(page.may_be_absent) << number << " was acknowledged and is gone";
      page = {};
    }
  }

 private:
  struct Page {
    std::set<std::uint64_t> versions;
    bool may_be_absent = true;
  };
  std::map<std::uint64_t, Page> pages_;
};

void survive(std::uint64_t rounds) {
  if (const char* orders = std::getenv(kOrders)) return be_the_victim(VictimOrders::read(orders));
  const std::uint64_t seed = std::random_device{}();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937_64 random(seed);
  TemporaryFolder folder;
  Allowed allowed;
  std::uint64_t acknowledged = 0, recovered = 0, torn = 0;
  for (std::uint64_t round = 1; round <= rounds && !::testing::Test::HasFailure(); ++round) {
    SCOPED_TRACE("round " + std::to_string(round));
    Victim victim(kOrders, round, folder.path());
    ASSERT_TRUE(victim.lives());
    victim.kill(std::chrono::microseconds(random() % 60'000), [&](const VictimEvent& event) {
      allowed.learn(event);
      acknowledged += event.event == 'S' || event.event == 'E';
    });
    PageDisk disk(disk_config(folder.path(), round));
    recovered += disk.counters().recovered;
    torn += disk.counters().lost_index_bytes > 0;
    EXPECT_EQ(disk.counters().misplaced, 0u);
    for (std::uint64_t number = 0; number < DiskHistory::kNumbers; ++number)
      allowed.check_and_settle(number, served_version(disk, number));
  }
  EXPECT_GT(acknowledged, rounds);
  EXPECT_GT(recovered, rounds);
  std::printf("seed %llu: %llu rounds, %llu acknowledged, %llu pages recovered, %llu torn logs\n",
              static_cast<unsigned long long>(seed), static_cast<unsigned long long>(rounds),
              static_cast<unsigned long long>(acknowledged),
              static_cast<unsigned long long>(recovered), static_cast<unsigned long long>(torn));
}

TEST(PageDiskKill, LosesNothingAcknowledged) {
  survive(10);
}

TEST(PageDiskKillNightly, LosesNothingAcknowledged) {
  survive(200);
}

}  // namespace
}  // namespace modalkv
