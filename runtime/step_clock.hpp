// How long decode steps take: from the call that attends at the first layer to the end of attention
// at the last. What the engine computes before and after is not seen.
#pragma once

#include <optional>

#include "offload/device.hpp"
#include "offload/ring.hpp"

namespace modalkv {

/// Told of each attention that was submitted, in order.
class StepClock {
 public:
  explicit StepClock(int layers) : layers_(layers) {}

  /// `end` is the last group of the attention. A step's layers follow one another, each attended to
  /// once or more; any other order is no step.
  void attended(int layer, bool decodes, Nanos at_ns, Ticket end) {
    const bool again = layer == layer_ && layers_ > 1;
    if (layer == 0 && !again) {
      begin_ns_ = at_ns;
      decodes_ = true;
    } else if (!again && layer != layer_ + 1) {
      layer_ = kNone;
      return;
    }
    decodes_ &= decodes;
    layer_ = layer;
    if (layer != layers_ - 1) return;
    if (again && !ended_.empty()) {
      ended_.back().end = end;
    } else if (decodes_ && !again) {
      if (ended_.room() == 0) ended_.pop_front();  // nobody was told of its end
      ended_.push_back({begin_ns_, end});
    }
  }

  /// The time of the oldest step that has ended since; `end_of(ticket)` says how a group ended.
  template <typename EndOf>
  std::optional<Nanos> next(EndOf&& end_of) {
    while (!ended_.empty()) {
      const std::optional<Completion> end = end_of(ended_.front().end);
      if (!end) return {};
      const Nanos begin_ns = ended_.front().begin_ns;
      ended_.pop_front();
      if (end->status == Status::ok) return end->at_ns - begin_ns;
    }
    return {};
  }

 private:
  struct Step {
    Nanos begin_ns = 0;
    Ticket end{};
  };
  static constexpr int kNone = -2;  // nothing follows it but a first layer

  int layers_;
  int layer_ = kNone;
  Nanos begin_ns_ = 0;
  bool decodes_ = true;
  Ring<Step> ended_{16};
};

}  // namespace modalkv
