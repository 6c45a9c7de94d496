// Copies and computing of a decode step apart: the same operations again, but nothing waits for
// anything in the other queue.
#pragma once

#include <optional>
#include <vector>

#include "offload/host_device.hpp"
#include "tools/bench/huge_buffer.hpp"
#include "tools/bench/recording_device.hpp"

namespace modalkv {

/// Milliseconds of steps during which the other queue was busy too.
struct TimesApart {
  std::vector<double> copy_ms, compute_ms;
};

/// A step's copies go to memory of their own, and what was staged is attended to in a further copy
/// of it, so that neither touches what the runtime holds.
class ReplayedStep {
 public:
  /// Registers memory with the device. Throws Error where the step copies nothing.
  ReplayedStep(HostDevice& device, const std::vector<RecordedGroup>& step);
  ReplayedStep(const ReplayedStep&) = delete;
  ReplayedStep& operator=(const ReplayedStep&) = delete;

  /// Runs both queues until each has ended so many steps, on an idle device. `step`: as at first,
  /// of another moment. Throws Error where an operation fails.
  TimesApart run(const std::vector<RecordedGroup>& step, int steps);

 private:
  using Groups = std::vector<std::vector<Op>>;

  Groups copies(const std::vector<RecordedGroup>& step, Bytes by) const;
  Groups computing(const std::vector<RecordedGroup>& step) const;
  std::optional<Op> repeatable(const Op& op) const;
  Address moved(const Address& address, Bytes by) const;
  bool is_staged(const Address& address) const;

  HostDevice& device_;
  QueueId h2d_, compute_;
  Address staging_{};  // what the step's copies fill
  HugeBuffer twins_;
  SpaceId twins_space_{};
};

}  // namespace modalkv
