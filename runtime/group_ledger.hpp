// Groups in flight on a device: what room its queues have, which have ended, which are overdue.
//
// A fence tells when memory may be used again: it is passed once every group that was submitted
// before it has ended. So nobody counts readers: what is given up waits for the fence of that
// moment.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "offload/device.hpp"
#include "offload/ring.hpp"

namespace modalkv {

using Fence = std::uint64_t;

/// One thread at a time, as its device.
class GroupLedger {
 public:
  /// A group that has not completed after `overdue_ns` is asked after by an empty group behind it,
  /// and counts as timed out if that one completes first.
  GroupLedger(Device& device, Nanos overdue_ns);

  /// Whether `groups` more groups with `ops` operations in all fit a queue.
  bool has_room(QueueId queue, int groups, int ops) const;
  int max_ops(QueueId queue) const { return queues_[queue.index].info.max_ops; }
  Submitted submit(QueueId queue, std::span<const Op> ops, std::span<const Ticket> after);

  /// The next outcome of a submitted group, each exactly once; `timeout` where the device never
  /// told. Waits up to `timeout_ns`.
  std::optional<Completion> next(Nanos timeout_ns);

  /// Of everything submitted so far.
  Fence fence() const { return next_; }
  bool passed(Fence fence) const { return fence <= passed_; }
  Fence passed() const { return passed_; }
  bool idle() const { return unreported_ == 0; }

 private:
  struct Group {
    Ticket ticket{};
    Fence number = 0;
    int ops = 0;
    Nanos at_ns = 0;
    bool reported = false;  // its outcome is known
    bool ended = false;     // itself or a later one of its queue
    bool probe = false;     // asks after those before it; nobody else wants its outcome
  };
  struct Queue {
    explicit Queue(const QueueInfo& queue_info)
        : info(queue_info), groups(static_cast<std::size_t>(queue_info.max_groups)) {}
    QueueInfo info;
    Ring<Group> groups;
    int ops = 0;
  };

  std::optional<Completion> settle(const Completion& completion);
  std::optional<Completion> overdue();
  void give_up();
  void probe(std::size_t queue);
  void forget_reported();

  Device& device_;
  Nanos overdue_ns_;
  std::vector<Queue> queues_;
  Fence next_ = 1, passed_ = 1;
  std::size_t unreported_ = 0;
};

}  // namespace modalkv
