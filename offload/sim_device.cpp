#include "offload/sim_device.hpp"

#include <algorithm>
#include <array>

#include "kernels/effects.hpp"

namespace modalkv {

SimDevice::SimDevice(const HardwareProfile& hardware, SimOptions options)
    : book_(standard_queues(static_cast<int>(hardware.host.numa_nodes.value.size()))),
      rates_(hardware),
      options_(options),
      random_(options.seed),
      lanes_(book_.queues().size()) {}

SimDevice::~SimDevice() {
  book_.abandon_exports();
}

RegisteredSpace SimDevice::register_space(const SpaceInfo& info) {
  return book_.register_space(info, false);
}

Submitted SimDevice::submit(QueueId queue, std::span<const Op> ops, std::span<const Ticket> after) {
  return book_.submit(queue, ops, after, now_ns_);
}

std::optional<Completion> SimDevice::next_completion(Nanos timeout_ns) {
  const Nanos deadline_ns = now_ns_ + std::clamp(timeout_ns, Nanos{0}, kMaxWaitNanos);
  for (;;) {
    if (const auto completion = book_.collect()) return completion;
    if (!book_.any_outstanding()) return std::nullopt;
    for (const Ticket event : book_.reached_events())
      book_.for_each_waiting(event, [&](std::size_t, GroupBook::Group& group) {
        group.ready_ns = std::max(group.ready_ns, now_ns_);
      });
    start_fronts();
    const Lane* next = nullptr;
    for (const Lane& lane : lanes_)
      if (lane.runs && (next == nullptr || lane.next_ns < next->next_ns)) next = &lane;
    if (next == nullptr || next->next_ns > deadline_ns) {
      now_ns_ = deadline_ns;
      return std::nullopt;
    }
    now_ns_ = next->next_ns;
    end_op(static_cast<std::size_t>(next - lanes_.data()));
  }
}

void SimDevice::start_fronts() {
  // All that start now run before the first is timed: directions of the link slow each other down.
  std::array<bool, kMaxQueues> starts{};
  for (std::size_t q = 0; q < lanes_.size(); ++q) {
    const GroupBook::Front front = book_.front(q);
    starts[q] =
        !lanes_[q].runs && front != GroupBook::Front::none && front != GroupBook::Front::waits;
    lanes_[q].runs |= starts[q];
  }
  for (std::size_t q = 0; q < lanes_.size(); ++q) {
    if (!starts[q]) continue;
    Lane& lane = lanes_[q];
    const GroupBook::Front front = book_.front(q);
    lane.op = 0;
    const Nanos start_ns = std::max(lane.free_ns, book_.front_group(q).ready_ns);
    if (front == GroupBook::Front::must_cancel || book_.front_group(q).ops == 0) {
      lane.next_ns = start_ns;
    } else {
      begin_op(q, start_ns);
    }
  }
}

void SimDevice::begin_op(std::size_t q, Nanos at_ns) {
  Lane& lane = lanes_[q];
  const QueueInfo& info = book_.queues()[q];
  const Nanos exact_ns =
      rates_.duration_ns(info, book_.front_op(q, lane.op), lane.op == 0, opposed(info.kind));
  Nanos duration_ns = exact_ns;
  if (options_.jitter > 0) {
    const double share = static_cast<double>(random_() >> 11) * 0x1p-53 * options_.jitter;
    duration_ns += static_cast<Nanos>(share * static_cast<double>(exact_ns));
  }
  lane.next_ns = at_ns + duration_ns;
}

void SimDevice::end_op(std::size_t q) {
  Lane& lane = lanes_[q];
  if (book_.front(q) == GroupBook::Front::must_cancel) return finish(q, Status::cancelled);
  const std::size_t ops = book_.front_group(q).ops;
  if (ops == 0) return finish(q, Status::ok);
  const Status status = perform_here(book_.front_op(q, lane.op));
  if (status != Status::ok || ++lane.op == ops) return finish(q, status);
  begin_op(q, now_ns_);
}

void SimDevice::finish(std::size_t q, Status status) {
  lanes_[q].runs = false;
  lanes_[q].free_ns = now_ns_;
  const Ticket ticket = book_.front_group(q).ticket;
  const QueueKind from = book_.queues()[q].kind;
  book_.finish_front(q, status, now_ns_);
  book_.for_each_waiting(ticket, [&](std::size_t waiting, GroupBook::Group& group) {
    const Nanos handover_ns = rates_.handover_ns(from, book_.queues()[waiting].kind);
    group.ready_ns = std::max(group.ready_ns, now_ns_ + handover_ns);
  });
}

bool SimDevice::opposed(QueueKind kind) const {
  if (kind != QueueKind::h2d && kind != QueueKind::d2h) return false;
  const QueueKind other = kind == QueueKind::h2d ? QueueKind::d2h : QueueKind::h2d;
  for (std::size_t q = 0; q < lanes_.size(); ++q)
    if (book_.queues()[q].kind == other && lanes_[q].runs) return true;
  return false;
}

Status SimDevice::perform_here(const Op& op) const {
  if (std::holds_alternative<EngineWork>(op)) return Status::ok;
  for (const Access& access : accesses(op))
    if (book_.memory()[access.where.space.index] == nullptr) return Status::ok;
  return perform(op, book_.memory());
}

}  // namespace modalkv
