// The bookkeeping of a device that runs groups itself: bounded queues, tickets, what waits for
// what, outcomes, engine events. Knows no time and no bytes. Not thread-safe.
#pragma once

#include <array>
#include <optional>
#include <span>
#include <vector>

#include "offload/device.hpp"
#include "offload/ring.hpp"

namespace modalkv {

class GroupBook {
 public:
  struct Group {
    Ticket ticket{};
    std::size_t ops = 0;
    std::array<Ticket, kMaxDependencies> after{};
    std::size_t after_count = 0;
    Nanos ready_ns = 0;  ///< where time is virtual: not before
  };
  enum class Front : std::uint8_t { none, waits, may_run, must_cancel };

  explicit GroupBook(std::vector<QueueInfo> queues);

  std::span<const QueueInfo> queues() const { return infos_; }
  RegisteredSpace register_space(const SpaceInfo& info, bool needs_memory);
  /// By SpaceId. Stays good, without spaces that are registered later.
  std::span<std::byte* const> memory() const { return space_memory_; }

  /// Whether there is such a queue, and it could perform these.
  bool valid(QueueId queue, std::span<const Op> ops) const;
  Submitted submit(QueueId queue, std::span<const Op> ops, std::span<const Ticket> after,
                   Nanos ready_ns);
  /// Of the oldest group of a queue that has not ended.
  Front front(std::size_t queue) const;
  Group& front_group(std::size_t queue) { return queues_[queue].groups.front(); }
  const Op& front_op(std::size_t queue, std::size_t i) const { return queues_[queue].ops[i]; }
  /// All groups of a queue that have not ended, oldest first, and their operations one after
  /// another: for who runs ahead.
  std::size_t groups(std::size_t queue) const { return queues_[queue].groups.size(); }
  const Group& group(std::size_t queue, std::size_t i) const { return queues_[queue].groups[i]; }
  const Op& op(std::size_t queue, std::size_t i) const { return queues_[queue].ops[i]; }
  /// Whether submit() or import_event() gave it.
  bool known(Ticket ticket) const;
  /// Of a known ticket.
  bool pending(Ticket ticket) const;
  bool failed(Ticket ticket) const;
  void finish_front(std::size_t queue, Status status, Nanos at_ns);
  /// Calls `function` with each group that waits for `ticket`, and its queue.
  template <typename Function>
  void for_each_waiting(Ticket ticket, Function&& function);

  std::optional<Completion> collect();
  /// Groups submitted and not collected.
  bool any_outstanding() const { return outstanding_ > 0; }

  Submitted import_event(EngineEvent event);
  Status export_event(Ticket ticket, EngineEvent event);
  /// What a pending imported event waits for; nullptr: it is not pending.
  const EngineEvent* awaited(Ticket ticket) const;
  /// Imported events that have happened since the last call.
  std::vector<Ticket> reached_events();
  bool waits_for_events() const { return !imports_.empty(); }
  /// Raises the words of everything that will not complete any more.
  void abandon_exports();

  static std::size_t queue_of(Ticket ticket) { return ticket.id & 0xff; }
  /// Within its queue, from 1; of an event, among events.
  static std::uint64_t sequence_of(Ticket ticket) { return ticket.id >> 8; }
  static bool is_event(Ticket ticket) { return queue_of(ticket) == kEventQueue; }

 private:
  struct Queue {
    explicit Queue(const QueueInfo& info)
        : groups(static_cast<std::size_t>(info.max_groups)),
          ops(static_cast<std::size_t>(info.max_ops)) {}
    Ring<Group> groups;
    Ring<Op> ops;
    std::size_t uncollected = 0;
    std::uint64_t last_submitted = 0;  // sequence within the queue
    std::uint64_t last_finished = 0;
  };
  struct PendingEvent {
    Ticket ticket{};
    EngineEvent event{};
  };

  static constexpr std::size_t kEventQueue = 0xff;
  static constexpr std::size_t kRememberedFailures = 1024;

  static Ticket ticket_of(std::size_t queue, std::uint64_t sequence) {
    return {sequence << 8 | queue};
  }

  std::vector<QueueInfo> infos_;
  std::vector<Queue> queues_;
  std::vector<Bytes> space_bytes_;
  std::vector<std::byte*> space_memory_;
  Ring<Completion> completions_;
  Ring<Ticket> failures_{kRememberedFailures};
  std::vector<PendingEvent> imports_, exports_;
  std::uint64_t last_import_ = 0;
  std::size_t outstanding_ = 0;
};

template <typename Function>
void GroupBook::for_each_waiting(Ticket ticket, Function&& function) {
  for (std::size_t q = 0; q < queues_.size(); ++q)
    for (std::size_t g = 0; g < queues_[q].groups.size(); ++g) {
      Group& group = queues_[q].groups[g];
      for (std::size_t a = 0; a < group.after_count; ++a)
        if (group.after[a] == ticket) function(q, group);
    }
}

}  // namespace modalkv
