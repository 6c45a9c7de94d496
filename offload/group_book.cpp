#include "offload/group_book.hpp"

#include <algorithm>
#include <numeric>

#include "offload/validate.hpp"

namespace modalkv {
namespace {

std::size_t all_groups(const std::vector<QueueInfo>& queues) {
  return std::accumulate(queues.begin(), queues.end(), std::size_t{0},
                         [](std::size_t sum, const QueueInfo& info) {
                           return sum + static_cast<std::size_t>(info.max_groups);
                         });
}

}  // namespace

GroupBook::GroupBook(std::vector<QueueInfo> queues)
    : infos_(std::move(queues)),
      queues_(infos_.begin(), infos_.end()),
      completions_(all_groups(infos_)) {
  if (infos_.empty() || infos_.size() > kMaxQueues)
    throw Error("a device has 1 to 16 queues, found " + std::to_string(infos_.size()));
  space_memory_.reserve(kMaxSpaces);  // so that a span of it stays good
  imports_.reserve(kMaxEngineEvents);
  exports_.reserve(kMaxEngineEvents);
}

RegisteredSpace GroupBook::register_space(const SpaceInfo& info, bool needs_memory) {
  if (info.bytes <= 0 || space_bytes_.size() >= kMaxSpaces ||
      (needs_memory && info.memory == nullptr))
    return {Status::rejected, {}};
  space_bytes_.push_back(info.bytes);
  space_memory_.push_back(info.memory);
  return {Status::ok, {static_cast<std::uint16_t>(space_bytes_.size() - 1)}};
}

bool GroupBook::known(Ticket ticket) const {
  if (ticket.id == 0) return true;
  const std::size_t queue = queue_of(ticket);
  const std::uint64_t sequence = sequence_of(ticket);
  if (queue == kEventQueue) return sequence >= 1 && sequence <= last_import_;
  return queue < queues_.size() && sequence >= 1 && sequence <= queues_[queue].last_submitted;
}

bool GroupBook::pending(Ticket ticket) const {
  if (ticket.id == 0) return false;
  const std::size_t queue = queue_of(ticket);
  if (queue == kEventQueue)
    return std::any_of(imports_.begin(), imports_.end(),
                       [&](const PendingEvent& import) { return import.ticket == ticket; });
  return sequence_of(ticket) > queues_[queue].last_finished;
}

bool GroupBook::failed(Ticket ticket) const {
  for (std::size_t i = 0; i < failures_.size(); ++i)
    if (failures_[i] == ticket) return true;
  return false;
}

bool GroupBook::valid(QueueId queue, std::span<const Op> ops) const {
  return queue.index < infos_.size() &&
         ops.size() <= static_cast<std::size_t>(infos_[queue.index].max_ops) &&
         std::all_of(ops.begin(), ops.end(),
                     [&](const Op& op) { return why_malformed(op, space_bytes_).empty(); });
}

Submitted GroupBook::submit(QueueId queue_id, std::span<const Op> ops,
                            std::span<const Ticket> after, Nanos ready_ns) {
  if (after.size() > kMaxDependencies || !valid(queue_id, ops)) return {Status::rejected, {}};
  if (!std::all_of(after.begin(), after.end(), [&](Ticket t) { return known(t); }))
    return {Status::rejected, {}};
  Queue& queue = queues_[queue_id.index];
  const QueueInfo& info = infos_[queue_id.index];
  if (queue.uncollected >= static_cast<std::size_t>(info.max_groups) ||
      queue.ops.room() < ops.size())
    return {Status::busy, {}};

  Group group{.ticket = ticket_of(queue_id.index, ++queue.last_submitted),
              .ops = ops.size(),
              .after_count = after.size(),
              .ready_ns = ready_ns};
  std::copy(after.begin(), after.end(), group.after.begin());
  for (const Op& op : ops) queue.ops.push_back(op);
  queue.groups.push_back(group);
  ++queue.uncollected;
  ++outstanding_;
  return {Status::ok, group.ticket};
}

GroupBook::Front GroupBook::front(std::size_t q) const {
  if (queues_[q].groups.empty()) return Front::none;
  const Group& group = queues_[q].groups[0];
  const std::span after(group.after.data(), group.after_count);
  if (std::any_of(after.begin(), after.end(), [&](Ticket t) { return pending(t); }))
    return Front::waits;
  const bool lost = std::any_of(after.begin(), after.end(), [&](Ticket t) { return failed(t); });
  return lost ? Front::must_cancel : Front::may_run;
}

void GroupBook::finish_front(std::size_t q, Status status, Nanos at_ns) {
  Queue& queue = queues_[q];
  const Group group = queue.groups.front();
  queue.groups.pop_front();
  queue.ops.pop_front(group.ops);
  queue.last_finished = sequence_of(group.ticket);
  if (status != Status::ok) {
    if (failures_.room() == 0) failures_.pop_front();
    failures_.push_back(group.ticket);
  }
  completions_.push_back({group.ticket, status, at_ns});
  std::erase_if(exports_, [&](const PendingEvent& waiting) {
    if (waiting.ticket != group.ticket) return false;
    let_happen(waiting.event);
    return true;
  });
}

std::optional<Completion> GroupBook::collect() {
  if (completions_.empty()) return std::nullopt;
  const Completion completion = completions_.front();
  completions_.pop_front();
  --queues_[queue_of(completion.ticket)].uncollected;
  --outstanding_;
  return completion;
}

Submitted GroupBook::import_event(EngineEvent event) {
  if (event.word == nullptr) return {Status::rejected, {}};
  const bool past = has_happened(event);
  if (!past && imports_.size() >= kMaxEngineEvents) return {Status::busy, {}};
  const Ticket ticket = ticket_of(kEventQueue, ++last_import_);
  if (!past) imports_.push_back({ticket, event});
  return {Status::ok, ticket};
}

Status GroupBook::export_event(Ticket ticket, EngineEvent event) {
  if (event.word == nullptr || !known(ticket) || queue_of(ticket) == kEventQueue)
    return Status::rejected;
  if (!pending(ticket)) {
    let_happen(event);
    return Status::ok;
  }
  if (exports_.size() >= kMaxEngineEvents) return Status::busy;
  exports_.push_back({ticket, event});
  return Status::ok;
}

const EngineEvent* GroupBook::awaited(Ticket ticket) const {
  const auto found =
      std::find_if(imports_.begin(), imports_.end(),
                   [&](const PendingEvent& import) { return import.ticket == ticket; });
  return found == imports_.end() ? nullptr : &found->event;
}

std::vector<Ticket> GroupBook::reached_events() {
  std::vector<Ticket> reached;
  std::erase_if(imports_, [&](const PendingEvent& import) {
    if (!has_happened(import.event)) return false;
    reached.push_back(import.ticket);
    return true;
  });
  return reached;
}

void GroupBook::abandon_exports() {
  for (const PendingEvent& waiting : exports_) let_happen(waiting.event);
  exports_.clear();
}

}  // namespace modalkv
