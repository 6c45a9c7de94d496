// A process that stores, loads and erases is killed at random moments. Whatever it was told is done
// is done, and nothing wrong is ever served.
//
// The victim is this same test, run again with its orders in the environment. It writes to a pipe
// before it asks for something and after it was told; what a killed process wrote to a pipe stays.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cstdlib>
#include <map>
#include <set>
#include <string>
#include <thread>

#include "tests/offload/disk_history.hpp"
#include "tests/offload/temporary_folder.hpp"

namespace modalkv {
namespace {

constexpr const char* kOrders = "MODALKV_DISK_VICTIM";
constexpr std::uint64_t kVersionsOfRound = 1'000'000;

struct Event {
  std::uint64_t event = 0, number = 0, version = 0;
};
constexpr std::uint64_t kRunning = 'r', kWrong = 'X';

PageDiskConfig disk_config(const std::string& directory, std::uint64_t round) {
  PageDiskConfig config = small_disk(directory, 48);
  config.backend = round % 2 == 0 ? DiskBackend::automatic : DiskBackend::threads;
  return config;
}

// Until it is killed. Orders: "pipe round directory".
void be_the_victim(const char* orders) {
  char* rest = nullptr;
  const int pipe = static_cast<int>(std::strtol(orders, &rest, 10));
  const std::uint64_t round = std::strtoull(rest, &rest, 10);
  const auto tell = [&](const Event& event) {
    if (::write(pipe, &event, sizeof(event)) != sizeof(event)) std::_Exit(1);
  };
  PageDisk disk(disk_config(rest + 1, round));
  DiskHistory history(round, false);
  history.adopt(disk, round * kVersionsOfRound);
  history.journal = [&](char event, std::uint64_t number, std::uint64_t version) {
    tell({static_cast<std::uint64_t>(event), number, version});
  };
  tell({kRunning, 0, 0});
  while (!::testing::Test::HasFailure()) history.step(disk);
  tell({kWrong, 0, 0});
}

// What the victim's events allow to be found.
class Allowed {
 public:
  void learn(const Event& event) {
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
        EXPECT_EQ(event.event, kRunning) << "the victim was served something wrong";
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

struct Victim {
  ::pid_t process = -1;
  int pipe = -1;
};

Victim start_victim(const std::string& directory, std::uint64_t round) {
  std::array<int, 2> ends{};
  if (::pipe(ends.data()) != 0) return {};
  ::fcntl(ends[0], F_SETFD, FD_CLOEXEC);
  const std::string orders =
      std::to_string(ends[1]) + " " + std::to_string(round) + " " + directory;
  const std::string filter =
      std::string("--gtest_filter=") +
      ::testing::UnitTest::GetInstance()->current_test_info()->test_suite_name() + ".*";
  const ::pid_t process = ::fork();
  if (process == 0) {
    ::setenv(kOrders, orders.c_str(), 1);
    ::execl("/proc/self/exe", "victim", filter.c_str(), "--gtest_brief=1", nullptr);
    std::_Exit(127);
  }
  ::close(ends[1]);
  return {process, ends[0]};
}

// Kills it `after` it began to run, and hears it to the end: how often it was told "done".
std::uint64_t kill_and_learn(const Victim& victim, std::chrono::microseconds after,
                             Allowed& allowed) {
  std::jthread killer;
  std::uint64_t acknowledged = 0;
  Event event;
  while (::read(victim.pipe, &event, sizeof(event)) == sizeof(event)) {
    allowed.learn(event);
    acknowledged += event.event == 'S' || event.event == 'E';
    if (event.event == kRunning)
      killer = std::jthread([&] {
        std::this_thread::sleep_for(after);
        ::kill(victim.process, SIGKILL);
      });
  }
  ::close(victim.pipe);
  if (killer.joinable()) killer.join();
  int status = 0;
  ::waitpid(victim.process, &status, 0);
  EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL)
      << "the victim ended by itself: status " << status;
  return acknowledged;
}

void survive(std::uint64_t rounds) {
  if (const char* orders = std::getenv(kOrders)) return be_the_victim(orders);
  const std::uint64_t seed = std::random_device{}();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937_64 random(seed);
  TemporaryFolder folder;
  Allowed allowed;
  std::uint64_t acknowledged = 0, recovered = 0, torn = 0;
  for (std::uint64_t round = 1; round <= rounds && !::testing::Test::HasFailure(); ++round) {
    SCOPED_TRACE("round " + std::to_string(round));
    const Victim victim = start_victim(folder.path(), round);
    ASSERT_GT(victim.process, 0);
    acknowledged += kill_and_learn(victim, std::chrono::microseconds(random() % 60'000), allowed);
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
