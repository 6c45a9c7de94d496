#include "scheduler/drift_monitor.hpp"

#include <algorithm>
#include <limits>

#include "modalkv/error.hpp"

namespace modalkv {
namespace {

constexpr long long kLongestGap = std::numeric_limits<long long>::max() / 4;

template <typename Steps, typename Time>
Nanos median(const Steps& steps, Time time) {
  if (steps.empty()) return 0;
  std::vector<Nanos> times;
  times.reserve(steps.size());
  for (const auto& step : steps) times.push_back(step.*time);
  const auto middle = times.begin() + static_cast<std::ptrdiff_t>(times.size() / 2);
  std::nth_element(times.begin(), middle, times.end());
  return *middle;
}

}  // namespace

DriftMonitor::DriftMonitor(const DriftBounds& bounds)
    : bounds_(bounds), since_alarm_(bounds.min_gap), gap_(bounds.min_gap) {
  if (!(bounds.leave >= 1) || !(bounds.enter >= bounds.leave) || bounds.window < 1 ||
      bounds.min_gap < 1)
    throw Error("drift: 1 <= leave <= enter, a window and a gap of a step at least");
  window_.reserve(static_cast<std::size_t>(bounds.window));
}

Nanos DriftMonitor::predicted_ns() const {
  return median(window_, &Step::predicted_ns);
}

Nanos DriftMonitor::actual_ns() const {
  return median(window_, &Step::actual_ns);
}

void DriftMonitor::forget() {
  window_.clear();
  next_ = 0;
}

bool DriftMonitor::add(Nanos predicted_ns, Nanos actual_ns) {
  if (window_.size() < static_cast<std::size_t>(bounds_.window)) {
    window_.push_back({predicted_ns, actual_ns});
  } else {
    window_[next_] = {predicted_ns, actual_ns};
    next_ = (next_ + 1) % window_.size();
  }
  since_alarm_ = std::min(since_alarm_ + 1, kLongestGap);
  if (window_.size() < static_cast<std::size_t>(bounds_.window)) return false;
  const auto predicted = static_cast<double>(this->predicted_ns()),
             actual = static_cast<double>(this->actual_ns());
  const double apart = std::max(actual / predicted, predicted / actual);
  if (apart <= bounds_.leave) {
    drifting_ = false;
    gap_ = bounds_.min_gap;
  } else if (apart > bounds_.enter) {
    drifting_ = true;
  }
  if (!drifting_ || since_alarm_ < gap_) return false;
  gap_ = std::min(2 * gap_, kLongestGap);
  since_alarm_ = 0;
  return true;
}

}  // namespace modalkv
