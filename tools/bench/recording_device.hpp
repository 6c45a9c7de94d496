// Keeps what is submitted to a device, so that it can be run again.
#pragma once

#include <utility>
#include <vector>

#include "offload/forwarding_device.hpp"

namespace modalkv {

struct RecordedGroup {
  QueueId queue{};
  std::vector<Op> ops{};
};

class RecordingDevice final : public ForwardingDevice {
 public:
  explicit RecordingDevice(Device& inner) : ForwardingDevice(inner) {}

  Submitted submit(QueueId queue, std::span<const Op> ops, std::span<const Ticket> after) override {
    const Submitted submitted = inner_.submit(queue, ops, after);
    if (recording_ && submitted.status == Status::ok)
      groups_.push_back({queue, {ops.begin(), ops.end()}});
    return submitted;
  }

  void record() { recording_ = true; }
  /// What was submitted since `record`, in order.
  std::vector<RecordedGroup> take() {
    recording_ = false;
    return std::exchange(groups_, {});
  }

 private:
  bool recording_ = false;
  std::vector<RecordedGroup> groups_;
};

}  // namespace modalkv
