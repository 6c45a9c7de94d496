// Whether steps take what was predicted, or so much more or less that a plan should be remade.
#pragma once

#include <cstddef>
#include <vector>

#include "modalkv/units.hpp"

namespace modalkv {

/// How far apart is drift. All in [1, ...).
struct DriftBounds {
  double enter = 1.3;  ///< steps drift once actual and predicted time differ by this factor
  double leave = 1.1;  ///< and do no more once they differ by no more than this
  int window = 33;     ///< steps whose medians are compared
  int min_gap = 256;   ///< steps between two alarms, at least
};

/// Compares the medians of a window of steps, so that single slow steps don't count. An alarm that
/// cured nothing is repeated, each time after twice the gap.
class DriftMonitor {
 public:
  /// Throws Error for bounds that make no sense.
  explicit DriftMonitor(const DriftBounds& bounds = {});

  /// One step more, of positive times. True: the plan should be remade.
  bool add(Nanos predicted_ns, Nanos actual_ns);
  /// What was measured under another plan does not count any more.
  void forget();

  bool drifting() const { return drifting_; }
  /// Over the window; 0 without a step.
  Nanos predicted_ns() const;
  Nanos actual_ns() const;

 private:
  struct Step {
    Nanos predicted_ns, actual_ns;
  };

  DriftBounds bounds_;
  std::vector<Step> window_;  // a ring
  std::size_t next_ = 0;
  bool drifting_ = false;
  long long since_alarm_, gap_;
};

}  // namespace modalkv
