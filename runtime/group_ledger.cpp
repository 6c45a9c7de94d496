#include "runtime/group_ledger.hpp"

#include <algorithm>

namespace modalkv {

GroupLedger::GroupLedger(Device& device, Nanos overdue_ns)
    : device_(device), overdue_ns_(overdue_ns) {
  for (const QueueInfo& info : device.queues()) queues_.emplace_back(info);
}

bool GroupLedger::has_room(QueueId queue, int groups, int ops) const {
  const Queue& q = queues_[queue.index];
  // One place stays free for asking after groups that are overdue.
  return q.groups.room() > static_cast<std::size_t>(groups) && q.ops + ops <= q.info.max_ops;
}

Submitted GroupLedger::submit(QueueId queue, std::span<const Op> ops,
                              std::span<const Ticket> after) {
  const Submitted submitted = device_.submit(queue, ops, after);
  if (submitted.status != Status::ok) return submitted;
  Queue& q = queues_[queue.index];
  q.groups.push_back({submitted.ticket, next_++, static_cast<int>(ops.size()), device_.now(), false,
                      false, false});
  q.ops += static_cast<int>(ops.size());
  ++unreported_;
  return submitted;
}

std::optional<Completion> GroupLedger::next(Nanos timeout_ns) {
  const Nanos until_ns = device_.now() + timeout_ns;
  while (true) {
    // Never longer than until somebody may be overdue.
    const Nanos from_ns = device_.now();
    const Nanos wait_ns = std::min(std::max(until_ns - from_ns, Nanos{0}), overdue_ns_);
    const auto completion = device_.next_completion(wait_ns);
    if (completion) {
      if (const auto outcome = settle(*completion)) return outcome;
      continue;
    }
    // Before its time, that says that nothing is outstanding: what we still wait for is lost.
    if (device_.now() - from_ns < wait_ns) give_up();
    if (const auto outcome = overdue()) return outcome;
    if (idle() || device_.now() >= until_ns) return {};
  }
}

void GroupLedger::give_up() {
  const Nanos long_ago_ns = device_.now() - overdue_ns_;
  for (Queue& queue : queues_)
    for (std::size_t i = 0; i < queue.groups.size(); ++i) {
      queue.groups[i].ended = true;
      queue.groups[i].at_ns = std::min(queue.groups[i].at_ns, long_ago_ns);
    }
}

// What a completion says of its group, and of those before it on its queue: they have ended.
std::optional<Completion> GroupLedger::settle(const Completion& completion) {
  for (Queue& queue : queues_)
    for (std::size_t i = 0; i < queue.groups.size(); ++i) {
      Group& group = queue.groups[i];
      if (group.ticket != completion.ticket) continue;
      if (group.reported) return {};  // it was given up before
      for (std::size_t before = 0; before <= i; ++before) queue.groups[before].ended = true;
      const bool probe = group.probe;
      group.reported = true;
      --unreported_;
      forget_reported();
      if (probe) return {};
      return completion;
    }
  return {};
}

std::optional<Completion> GroupLedger::overdue() {
  const Nanos now_ns = device_.now();
  for (std::size_t q = 0; q < queues_.size(); ++q) {
    Ring<Group>& groups = queues_[q].groups;
    for (std::size_t i = 0; i < groups.size(); ++i) {
      Group& group = groups[i];
      if (group.reported || now_ns - group.at_ns < overdue_ns_) continue;
      if (!group.ended) {
        probe(q);
        break;
      }
      const Completion outcome{group.ticket, Status::timeout, now_ns};
      const bool is_probe = group.probe;
      group.reported = true;
      --unreported_;
      forget_reported();
      if (!is_probe) return outcome;
      break;
    }
  }
  return {};
}

void GroupLedger::probe(std::size_t queue) {
  Ring<Group>& groups = queues_[queue].groups;
  // Behind everything, and not more often than outcomes are awaited.
  const Group& last = groups.back();
  if (groups.room() == 0 || (last.probe && device_.now() - last.at_ns < overdue_ns_)) return;
  const Submitted submitted = device_.submit({static_cast<std::uint8_t>(queue)}, {}, {});
  if (submitted.status != Status::ok) return;
  groups.push_back({submitted.ticket, next_++, 0, device_.now(), false, false, true});
  ++unreported_;
}

void GroupLedger::forget_reported() {
  for (Queue& queue : queues_)
    while (!queue.groups.empty() && queue.groups.front().reported) {
      queue.ops -= queue.groups.front().ops;
      queue.groups.pop_front();
    }
  Fence passed = next_;
  for (const Queue& queue : queues_)
    for (std::size_t i = 0; i < queue.groups.size(); ++i)
      if (!queue.groups[i].ended) {
        passed = std::min(passed, queue.groups[i].number);
        break;
      }
  passed_ = passed;
}

}  // namespace modalkv
