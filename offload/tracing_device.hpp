// A decorator that takes down what ran when: each group once, how long each queue was busy, and for
// how long the GPU waited for others.
//
// The seam tells when a group was submitted and when it completed, not when it began. It began no
// earlier than its submission, the end of the group before it on its queue, and the ends of those
// it waited for: the latest of these counts as its begin. So what a group waits for besides (an
// event of the engine, a busy thread) counts as its own time.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "offload/forwarding_device.hpp"
#include "offload/ring.hpp"

namespace modalkv {

/// For whom a group is submitted.
struct TraceLabel {
  std::uint64_t step = 0;
  int layer = 0;
};

/// A group that has completed.
struct TracedGroup {
  std::uint64_t number = 0;  ///< in the order of submission, over all queues
  QueueId queue{};
  TraceLabel label{};
  std::string_view what{};  ///< its operation that moves most bytes; "point" where it has none
  int ops = 0;
  Bytes bytes = 0;  ///< written by copies, read by everything else
  Nanos submitted_ns = 0;
  Nanos begin_ns = 0;  ///< estimated
  Nanos end_ns = 0;
  Status status = Status::ok;
};

/// What a queue has done.
struct QueueUse {
  std::int64_t groups = 0;
  std::int64_t ops = 0;
  Bytes bytes = 0;
  Nanos busy_ns = 0;  ///< from the estimated begin to the end of its groups
};

/// Time in which the compute queue had a group, had ended those before it, and waited.
struct Stalls {
  Nanos link_ns = 0;  ///< for copies
  Nanos host_ns = 0;  ///< for attention on the host, whose result a copy then brings
};

/// Takes nothing down until it is told to; then some tens of nanoseconds a group, and no memory.
/// Groups that are submitted before that, or whose completion is never told, are in no figure.
class TracingDevice final : public ForwardingDevice {
 public:
  /// Remembers the latest `max_groups`, 1 at least.
  TracingDevice(Device& inner, std::size_t max_groups);

  void record(bool on) { recording_ = on; }
  bool recording() const { return recording_; }
  /// Of the groups submitted from now on.
  void label(const TraceLabel& label) { label_ = label; }

  /// The remembered groups of steps from `from_step` on, those of a queue in order and apart.
  std::vector<TracedGroup> groups(std::uint64_t from_step = 0) const;
  /// By queue.
  const std::vector<QueueUse>& use() const { return use_; }
  const Stalls& stalls() const { return stalls_; }

  /// The latest group of a queue that was taken down; the default where there is none.
  Ticket newest(QueueId queue) const { return newest_[queue.index]; }
  /// How a group has ended; nothing where it has not, or long ago.
  std::optional<Completion> end_of(Ticket ticket) const;

  Submitted submit(QueueId queue, std::span<const Op> ops, std::span<const Ticket> after) override;
  std::optional<Completion> next_completion(Nanos timeout_ns) override;

 private:
  static constexpr std::size_t kRememberedEnds = 4096;

  struct Live {
    Ticket ticket{};
    bool ended = false;
    TracedGroup group{};
    std::array<Ticket, kMaxDependencies> after{};
    std::size_t after_count = 0;
  };
  struct End {
    Completion completion{};
    QueueKind kind = QueueKind::compute;
    Nanos host_until_ns = 0;  // a copy: the end of the work of the host that it waited for
  };
  // Until when a group had to wait, by whom for.
  struct Waits {
    Nanos own_ns = 0, link_ns = 0, host_ns = 0;
  };

  static std::size_t place(Ticket ticket);
  const End* find_end(Ticket ticket) const;
  Waits waits(const Live& live) const;
  void take_down(const Completion& completion);
  void end(Live& live, const Completion& completion);

  bool recording_ = false;
  TraceLabel label_{};
  std::uint64_t next_ = 1;
  std::vector<Ring<Live>> live_;  // by queue
  std::vector<Ticket> newest_;
  std::vector<Nanos> free_at_ns_;
  std::vector<QueueUse> use_;
  Stalls stalls_{};
  std::vector<End> ends_;  // by ticket: a later one in the same place replaces it
  Ring<TracedGroup> groups_;
};

}  // namespace modalkv
