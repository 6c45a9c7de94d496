#include "tools/bench/decode_rounds.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <optional>

#include "kernels/number.hpp"
#include "modalkv/error.hpp"
#include "scheduler/format_name.hpp"
#include "tools/bench/ceilings.hpp"
#include "tools/bench/replayed_step.hpp"

namespace modalkv {
namespace {

constexpr int kFirstReadings = 9;
constexpr Bytes kLeastCeilingBytes = 64 * kMiB;
constexpr double kCpuShares[] = {0.125, 0.25, 0.375, 0.5};  // of what is not resident
constexpr double kLeastStreamed = 0.1;

// Steps of one placement, with what each round said.
class Series {
 public:
  Series(const DecodeShape& shape, const PlaceShares& shares, double link_bytes_per_s)
      : shares_(shares), engine_(shape, shares, link_bytes_per_s) {
    engine_.step();  // the next finds its first layers brought ahead
    const Bytes streamed = engine_.counters().streamed_bytes;
    engine_.step();
    streamed_bytes_ = engine_.counters().streamed_bytes - streamed;
    for (const std::uint16_t element : engine_.outputs()) outputs_.push_back(from_fp16(element));
  }

  /// `apart`: copies and computing by themselves too.
  void run_round(int steps, bool apart) {
    engine_.rewind();
    engine_.step();
    std::vector<double> times;
    for (int i = 0; i < steps; ++i) times.push_back(static_cast<double>(engine_.step()) / 1e6);
    rounds_ms_.push_back(median_of(times));
    step_ms_.insert(step_ms_.end(), times.begin(), times.end());
    if (apart) take_apart(steps);
  }

  DecodeTimes times(const Series& streaming) const {
    std::vector<double> ratios;
    for (std::size_t r = 0; r < rounds_ms_.size(); ++r)
      ratios.push_back(rounds_ms_[r] / streaming.rounds_ms_[r]);
    return {.shares = shares_,
            .streamed_bytes = streamed_bytes_,
            .step_ms = time_spread(step_ms_),
            .over_streaming = time_spread(ratios),
            .difference = relative_difference(streaming.outputs_)};
  }
  OverlapTimes overlap(const Series& streaming) const {
    return {.step = times(streaming),
            .copy_ms = time_spread(copy_ms_),
            .compute_ms = time_spread(compute_ms_),
            .over_longer = time_spread(over_longer_)};
  }
  /// Of a step apart, computing over copying.
  double compute_over_copy() const { return median_of(compute_ms_) / median_of(copy_ms_); }

 private:
  void take_apart(int steps) {
    const std::vector<RecordedGroup> recorded = engine_.record_step();
    if (!replayed_) replayed_.emplace(engine_.device(), recorded);
    const TimesApart apart = replayed_->run(recorded, steps);
    copy_ms_.insert(copy_ms_.end(), apart.copy_ms.begin(), apart.copy_ms.end());
    compute_ms_.insert(compute_ms_.end(), apart.compute_ms.begin(), apart.compute_ms.end());
    over_longer_.push_back(rounds_ms_.back() /
                           std::max(median_of(apart.copy_ms), median_of(apart.compute_ms)));
  }

  double relative_difference(const std::vector<double>& from) const {
    double square = 0, all = 0;
    for (std::size_t i = 0; i < from.size(); ++i) {
      square += std::pow(outputs_[i] - from[i], 2);
      all += std::pow(from[i], 2);
    }
    return std::sqrt(square / all);
  }

  PlaceShares shares_;
  DecodeEngine engine_;
  Bytes streamed_bytes_ = 0;
  std::vector<double> outputs_;
  std::optional<ReplayedStep> replayed_;
  std::vector<double> rounds_ms_, step_ms_, copy_ms_, compute_ms_, over_longer_;
};

using ManySeries = std::vector<std::unique_ptr<Series>>;

void run_rounds(const ManySeries& overlaps, const ManySeries& mixes, const DecodeCase& options,
                Ceilings& ceilings) {
  for (int round = 0; round < options.rounds; ++round) {
    for (const auto& each : overlaps) each->run_round(options.steps_a_round, true);
    for (const auto& each : mixes) each->run_round(options.steps_a_round, false);
    ceilings.measure();
  }
}

}  // namespace

DecodeResult measure_decode(const DecodeCase& options, const HostCpu& cpu) {
  DecodeShape shape = options.shape;
  shape.format = parse_kv_format(options.format);
  if (shape.layers < shape.staging_slots)
    throw Error(fmt::format("--layers {}: staging of {} slots needs as many", shape.layers,
                            shape.staging_slots));
  ThreadTeam team(cpu.cpus);
  const Bytes ceiling_bytes = std::max(4 * cpu.last_level_cache_bytes, kLeastCeilingBytes);
  require_memory(ceiling_bytes + kLeastCeilingBytes, "memory to read");
  const HugeBuffer memory(ceiling_bytes);
  Ceilings ceilings(team, memory.bytes(), kLeastCeilingBytes);
  for (int i = 0; i < kFirstReadings; ++i) ceilings.measure();
  DecodeResult result;
  result.link_bytes_per_s = options.link_share * median_of(ceilings.read_bytes().readings);

  const auto made = [&](const PlaceShares& shares) {
    return std::make_unique<Series>(shape, shares, result.link_bytes_per_s);
  };
  const double on_host = 1 - options.resident_share;
  ManySeries overlaps, mixes;
  overlaps.push_back(made({0, 1, 0}));
  overlaps.push_back(made({options.resident_share, on_host, 0}));
  for (const double cpu_share : kCpuShares)
    mixes.push_back(made({options.resident_share, on_host * (1 - cpu_share), on_host * cpu_share}));
  const Series& streaming = *overlaps.front();
  {
    // Where neither hides behind the other.
    const auto trial = made({0, 1, 0});
    trial->run_round(options.steps_a_round, true);
    const double streamed = std::clamp(trial->compute_over_copy(), kLeastStreamed, 1.0);
    overlaps.push_back(made({1 - streamed, streamed, 0}));
  }
  run_rounds(overlaps, mixes, options, ceilings);

  result.read_bytes_per_s = time_spread(ceilings.read_bytes().readings);
  for (const auto& each : overlaps) result.overlaps.push_back(each->overlap(streaming));
  for (const auto& each : {&overlaps[0], &overlaps[1]})
    result.mixes.push_back((*each)->times(streaming));
  for (const auto& each : mixes) result.mixes.push_back(each->times(streaming));
  return result;
}

}  // namespace modalkv
