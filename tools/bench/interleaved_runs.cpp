#include "tools/bench/interleaved_runs.hpp"

#include <algorithm>
#include <chrono>
#include <cstddef>

namespace modalkv {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int kWarmUps = 2;
// Back to back as in decoding, so that only the first of them finds the workers asleep.
constexpr int kRunsARound = 5;
constexpr int kLeastRuns = 25;
constexpr int kLeastRounds = 7;
constexpr std::chrono::seconds kLeastTime{2};

}  // namespace

std::vector<double> RoundTimes::all_ms() const {
  std::vector<double> all;
  for (const std::vector<double>& round : rounds_ms)
    all.insert(all.end(), round.begin(), round.end());
  return all;
}

double RoundTimes::fraction_of(const Ceiling& ceiling, double amount) const {
  std::vector<double> fractions;
  for (std::size_t r = 0; r < rounds_ms.size(); ++r)
    fractions.push_back(amount * 1e3 / median_of(rounds_ms[r]) / ceiling.readings[r]);
  return median_of(fractions);
}

double RoundTimes::ratio_to_sum(std::span<const RoundTimes> parts) const {
  std::vector<double> ratios;
  for (std::size_t r = 0; r < rounds_ms.size(); ++r) {
    double sum_ms = 0;
    for (const RoundTimes& part : parts) sum_ms += median_of(part.rounds_ms[r]);
    ratios.push_back(median_of(rounds_ms[r]) / sum_ms);
  }
  return median_of(ratios);
}

std::vector<RoundTimes> run_interleaved(std::span<const Workload> workloads, Ceilings& ceilings,
                                        int runs) {
  std::vector<RoundTimes> times(workloads.size());
  std::int64_t turn = 0;
  for (int i = 0; i < kWarmUps; ++i)
    for (const Workload& workload : workloads) workload(turn++);
  const Clock::time_point begin = Clock::now();
  const auto enough = [&](int done, int rounds) {
    if (runs > 0) return done >= runs;
    return done >= kLeastRuns && rounds >= kLeastRounds && Clock::now() - begin >= kLeastTime;
  };
  for (int done = 0, rounds = 0; !enough(done, rounds); ++rounds) {
    const int count = runs > 0 ? std::min(kRunsARound, runs - done) : kRunsARound;
    for (std::size_t w = 0; w < workloads.size(); ++w) {
      std::vector<double>& round = times[w].rounds_ms.emplace_back();
      for (int i = 0; i < count; ++i)
        round.push_back(static_cast<double>(workloads[w](turn++)) / 1e6);
    }
    done += count;
    ceilings.measure();
  }
  return times;
}

}  // namespace modalkv
