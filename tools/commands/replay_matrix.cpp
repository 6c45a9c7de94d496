#include "tools/commands/replay_matrix.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <exception>
#include <mutex>
#include <thread>

#include "modalkv/error.hpp"
#include "tools/commands/held_signals.hpp"

namespace modalkv {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::int64_t kStepsBetweenReports = 20'000;
constexpr auto kRedraw = std::chrono::milliseconds(200);

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

void draw(std::int64_t done, std::int64_t all, double seconds) {
  constexpr int width = 30;
  const double share = all > 0 ? static_cast<double>(done) / static_cast<double>(all) : 1;
  const int full = static_cast<int>(share * width);
  fmt::print(stderr, "\r[{:#<{}}{:.<{}}] {:3.0f} %  {} of {} requests  {:.0f}/s ", "", full, "",
             width - full, 100 * share, done, all,
             seconds > 0 ? static_cast<double>(done) / seconds : 0);
  std::fflush(stderr);
}

}  // namespace

std::vector<TimedReplay> replay_all(const Trace& trace, const std::vector<ReplayConfig>& configs,
                                    int threads, bool quiet) {
  std::vector<TimedReplay> replays(configs.size());
  std::vector<std::atomic<std::int64_t>> done(configs.size());
  std::atomic<std::size_t> next{0};
  std::mutex mutex;  // guards the two below
  std::exception_ptr failure;
  std::size_t finished = 0;
  std::condition_variable changed;

  const auto work = [&](std::stop_token stop) {
    for (std::size_t i = next++; i < configs.size(); i = next++) {
      try {
        const auto start = Clock::now();
        Replay replay(trace, configs[i]);
        while (replay.advance(kStepsBetweenReports)) {
          if (stop.stop_requested()) throw Error("interrupted");
          done[i] = replay.requests_done();
        }
        done[i] = replay.requests_done();
        replays[i].result = replay.finish();
        replays[i].wall_s = seconds_since(start);
      } catch (...) {
        const std::lock_guard lock(mutex);
        if (!failure) failure = std::current_exception();
      }
      const std::lock_guard lock(mutex);
      ++finished;
      changed.notify_one();
    }
  };
  const auto start = Clock::now();
  std::vector<std::jthread> workers;
  const auto count = std::min(configs.size(), static_cast<std::size_t>(std::max(1, threads)));
  for (std::size_t i = 0; i < count; ++i) workers.emplace_back(work);

  const bool show = !quiet && ::isatty(STDERR_FILENO) == 1;
  const auto all = static_cast<std::int64_t>(trace.requests.size() * configs.size());
  std::unique_lock lock(mutex);
  while (!changed.wait_for(lock, kRedraw, [&] { return finished == configs.size(); })) {
    std::int64_t sum = 0;
    for (const auto& part : done) sum += part;
    if (show) draw(sum, all, seconds_since(start));
    if (HeldSignals::pending())
      for (std::jthread& worker : workers) worker.request_stop();
  }
  if (show) fmt::print(stderr, "\r{:80}\r", "");
  lock.unlock();
  workers.clear();
  if (failure) std::rethrow_exception(failure);
  return replays;
}

}  // namespace modalkv
