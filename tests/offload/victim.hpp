// A process that is killed at a random moment. It is this same test, run again with its orders in
// the environment; it writes to a pipe what it does, and what a killed process wrote stays there.
#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <thread>

namespace modalkv {

struct VictimEvent {
  std::uint64_t event = 0, number = 0, version = 0;
};
inline constexpr std::uint64_t kVictimRuns = 'r', kVictimIsWrong = 'X';

/// What a victim was told: "pipe round directory".
struct VictimOrders {
  int pipe = -1;
  std::uint64_t round = 0;
  std::string directory;

  static VictimOrders read(const char* orders) {
    VictimOrders read;
    char* rest = nullptr;
    read.pipe = static_cast<int>(std::strtol(orders, &rest, 10));
    read.round = std::strtoull(rest, &rest, 10);
    read.directory = rest + 1;
    return read;
  }
  void tell(const VictimEvent& event) const {
    if (::write(pipe, &event, sizeof(event)) != sizeof(event)) std::_Exit(1);
  }
};

class Victim {
 public:
  /// Its orders are in `variable`.
  Victim(const char* variable, std::uint64_t round, const std::string& directory) {
    std::array<int, 2> ends{};
    if (::pipe(ends.data()) != 0) return;
    ::fcntl(ends[0], F_SETFD, FD_CLOEXEC);
    const std::string orders =
        std::to_string(ends[1]) + " " + std::to_string(round) + " " + directory;
    const std::string filter =
        std::string("--gtest_filter=") +
        ::testing::UnitTest::GetInstance()->current_test_info()->test_suite_name() + ".*";
    process_ = ::fork();
    if (process_ == 0) {
      ::setenv(variable, orders.c_str(), 1);
      ::execl("/proc/self/exe", "victim", filter.c_str(), "--gtest_brief=1", nullptr);
      std::_Exit(127);
    }
    ::close(ends[1]);
    pipe_ = ends[0];
  }
  Victim(Victim&&) = delete;

  bool lives() const { return process_ > 0; }

  /// Kills it `after` it began to run, and hears it to the end.
  template <typename Learn>
  void kill(std::chrono::microseconds after, Learn&& learn) {
    std::jthread killer;
    VictimEvent event;
    while (::read(pipe_, &event, sizeof(event)) == sizeof(event)) {
      learn(event);
      if (event.event == kVictimRuns)
        killer = std::jthread([this, after] {
          std::this_thread::sleep_for(after);
          ::kill(process_, SIGKILL);
        });
    }
    ::close(pipe_);
    if (killer.joinable()) killer.join();
    int status = 0;
    ::waitpid(process_, &status, 0);
    EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL)
        << "the victim ended by itself: status " << status;
  }

 private:
  ::pid_t process_ = -1;
  int pipe_ = -1;
};

}  // namespace modalkv
