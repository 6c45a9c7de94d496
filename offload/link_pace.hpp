// A link that is slower than memory: what a machine without a GPU needs to show how copies and
// computing overlap. Knows no clock; who copies waits until it says.
#pragma once

#include <algorithm>

#include "modalkv/units.hpp"

namespace modalkv {

/// Copies end one after another, as on a link of so many bytes per second that takes `copy_ns` more
/// for each copy.
class LinkPace {
 public:
  /// A copy may begin so much before it is asked for: its caller woke late from the one before, by
  /// some slices of a busy scheduler.
  static constexpr Nanos kMostLateNanos = 10 * kMillisecond;

  LinkPace(double bytes_per_second, Nanos copy_ns)
      : ns_per_byte_(bytes_per_second > 0 ? 1e9 / bytes_per_second : 0), copy_ns_(copy_ns) {}

  /// Nothing was to be copied until now.
  void idle_until(Nanos now_ns) { end_ns_ = std::max(end_ns_, now_ns); }

  /// When a copy has ended that is asked for now and begins when the one before it has ended.
  Nanos end_of(Bytes bytes, Nanos now_ns) {
    idle_until(now_ns - kMostLateNanos);
    constexpr double longest = 3600.0 * kSecond;
    end_ns_ +=
        copy_ns_ + static_cast<Nanos>(std::min(longest, ns_per_byte_ * static_cast<double>(bytes)));
    return end_ns_;
  }

 private:
  double ns_per_byte_;
  Nanos copy_ns_;
  Nanos end_ns_ = 0;
};

}  // namespace modalkv
