#include "offload/tracing_device.hpp"

#include <algorithm>
#include <tuple>

namespace modalkv {
namespace {

Bytes moved_bytes(const Op& op) {
  const OpCost asked = cost(op);
  return std::holds_alternative<Copy>(op) ? asked.written_bytes
                                          : std::max(asked.read_bytes, asked.written_bytes);
}

bool is_link(QueueKind kind) {
  return kind == QueueKind::h2d || kind == QueueKind::d2h;
}

}  // namespace

TracingDevice::TracingDevice(Device& inner, std::size_t max_groups)
    : ForwardingDevice(inner),
      newest_(inner.queues().size()),
      free_at_ns_(inner.queues().size()),
      use_(inner.queues().size()),
      ends_(kRememberedEnds),
      groups_(std::max<std::size_t>(max_groups, 1)) {
  for (const QueueInfo& info : inner.queues())
    live_.emplace_back(static_cast<std::size_t>(info.max_groups));
}

Submitted TracingDevice::submit(QueueId queue, std::span<const Op> ops,
                                std::span<const Ticket> after) {
  if (!recording_) return inner_.submit(queue, ops, after);
  const Nanos at_ns = inner_.now();
  const Submitted submitted = inner_.submit(queue, ops, after);
  if (submitted.status != Status::ok) return submitted;
  Ring<Live>& live = live_[queue.index];
  if (live.room() == 0) live.pop_front();  // nobody was told how it ended
  Live group{.ticket = submitted.ticket,
             .group = {.number = next_++,
                       .queue = queue,
                       .label = label_,
                       .what = ops.empty() ? "point" : name(ops.front()),
                       .ops = static_cast<int>(ops.size()),
                       .submitted_ns = at_ns}};
  Bytes most = 0;
  for (const Op& op : ops) {
    const Bytes bytes = moved_bytes(op);
    group.group.bytes += bytes;
    if (bytes <= most) continue;
    most = bytes;
    group.group.what = name(op);
  }
  group.after_count = after.size();
  std::copy(after.begin(), after.end(), group.after.begin());
  live.push_back(group);
  newest_[queue.index] = submitted.ticket;
  return submitted;
}

std::optional<Completion> TracingDevice::next_completion(Nanos timeout_ns) {
  const auto completion = inner_.next_completion(timeout_ns);
  if (completion && next_ > 1) take_down(*completion);
  return completion;
}

void TracingDevice::take_down(const Completion& completion) {
  for (Ring<Live>& live : live_)
    for (std::size_t i = 0; i < live.size(); ++i) {
      if (live[i].ticket != completion.ticket) continue;
      end(live[i], completion);
      while (!live.empty() && live.front().ended) live.pop_front();
      return;
    }
}

void TracingDevice::end(Live& live, const Completion& completion) {
  live.ended = true;
  TracedGroup& group = live.group;
  const std::size_t queue = group.queue.index;
  const QueueKind kind = queues()[queue].kind;
  const Waits until = waits(live);
  const Nanos others_ns = std::max(until.link_ns, until.host_ns);
  group.begin_ns = std::min(std::max(until.own_ns, others_ns), completion.at_ns);
  group.end_ns = completion.at_ns;
  group.status = completion.status;
  if (kind == QueueKind::compute) {
    const Nanos stall_ns = std::max(group.begin_ns - until.own_ns, Nanos{0});
    const Nanos host_ns = std::clamp(until.host_ns - until.own_ns, Nanos{0}, stall_ns);
    stalls_.host_ns += host_ns;
    stalls_.link_ns += stall_ns - host_ns;
  }
  QueueUse& use = use_[queue];
  ++use.groups;
  use.ops += group.ops;
  use.bytes += group.bytes;
  use.busy_ns += group.end_ns - group.begin_ns;
  free_at_ns_[queue] = std::max(free_at_ns_[queue], group.end_ns);
  ends_[place(completion.ticket)] = {completion, kind, is_link(kind) ? until.host_ns : 0};
  if (groups_.room() == 0) groups_.pop_front();
  groups_.push_back(group);
}

TracingDevice::Waits TracingDevice::waits(const Live& live) const {
  Waits until{.own_ns = std::max(live.group.submitted_ns, free_at_ns_[live.group.queue.index])};
  for (std::size_t i = 0; i < live.after_count; ++i) {
    const End* end = find_end(live.after[i]);
    if (end == nullptr) continue;
    const Nanos at_ns = end->completion.at_ns;
    if (end->kind == QueueKind::host) {
      until.host_ns = std::max(until.host_ns, at_ns);
    } else if (is_link(end->kind)) {
      until.link_ns = std::max(until.link_ns, at_ns);
      until.host_ns = std::max(until.host_ns, end->host_until_ns);
    } else {
      until.own_ns = std::max(until.own_ns, at_ns);
    }
  }
  return until;
}

// Tickets of a queue follow one another in any part of the number: all of it decides.
std::size_t TracingDevice::place(Ticket ticket) {
  return static_cast<std::size_t>((ticket.id * 0x9e3779b97f4a7c15u) >> 32) % kRememberedEnds;
}

const TracingDevice::End* TracingDevice::find_end(Ticket ticket) const {
  const End& end = ends_[place(ticket)];
  return ticket.id != 0 && end.completion.ticket == ticket ? &end : nullptr;
}

std::optional<Completion> TracingDevice::end_of(Ticket ticket) const {
  const End* end = find_end(ticket);
  return end == nullptr ? std::nullopt : std::optional(end->completion);
}

std::vector<TracedGroup> TracingDevice::groups(std::uint64_t from_step) const {
  std::vector<TracedGroup> all;
  for (std::size_t i = 0; i < groups_.size(); ++i)
    if (groups_[i].label.step >= from_step) all.push_back(groups_[i]);
  std::sort(all.begin(), all.end(), [](const TracedGroup& a, const TracedGroup& b) {
    return std::tuple(a.queue.index, a.number) < std::tuple(b.queue.index, b.number);
  });
  // A group that was reported late has ended before its successor began, which was not known then.
  for (std::size_t i = 1; i < all.size(); ++i)
    if (all[i].queue == all[i - 1].queue)
      all[i].begin_ns = std::min(std::max(all[i].begin_ns, all[i - 1].end_ns), all[i].end_ns);
  return all;
}

}  // namespace modalkv
