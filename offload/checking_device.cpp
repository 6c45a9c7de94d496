#include "offload/checking_device.hpp"

#include <fmt/core.h>

#include <algorithm>
#include <cstring>

#include "offload/validate.hpp"

namespace modalkv {
namespace {

constexpr std::byte kRedZone{0xa5};

template <typename Clock>
void join(Clock& clock, const Clock& other) {
  for (std::size_t q = 0; q < clock.size(); ++q) clock[q] = std::max(clock[q], other[q]);
}

std::string describe(const Op& op, const Address& where) {
  return fmt::format("{} of {} bytes at {} of space {}", name(op), where.bytes, where.offset,
                     where.space.index);
}

}  // namespace

// Of an operation over pages, the pages that its table lists now, where that can be seen; they are
// then all that it reads of `pages`.
std::vector<Access> CheckingDevice::touched(const Op& op) const {
  const Accesses stated = accesses(op);
  std::vector<Access> all(stated.begin(), stated.end());
  const auto list = [&](const auto& over) {
    const std::byte* table = spaces_[over.page_table.space.index].memory;
    if (table == nullptr) return;
    std::vector<Access> pages;
    for (Bytes at = 0; at < over.page_table.bytes; at += kPageTableEntryBytes) {
      Address page{over.pages.space, 0, page_bytes(over.shape)};
      std::memcpy(&page.offset, table + over.page_table.offset + at, sizeof(page.offset));
      if (page.offset < 0 || page.offset + page.bytes > over.pages.bytes)
        return;  // it will be rejected
      page.offset += over.pages.offset;
      pages.push_back({page});
    }
    std::erase_if(all, [&](const Access& access) { return access.where == over.pages; });
    all.insert(all.end(), pages.begin(), pages.end());
  };
  if (const auto* attend = std::get_if<Attend>(&op)) list(*attend);
  if (const auto* score = std::get_if<Score>(&op)) list(*score);
  return all;
}

// The first pair of accesses that must not happen at once, if any.
std::string CheckingDevice::conflict(const Group& a, const Group& b) {
  for (std::size_t i = 0; i < a.ops.size(); ++i)
    for (std::size_t j = 0; j < b.ops.size(); ++j)
      for (const Access& x : a.touched[i])
        for (const Access& y : b.touched[j])
          if ((x.writes || y.writes) && overlap(x.where, y.where))
            return fmt::format("{} ({}) and {} ({})", describe(a.ops[i], x.where),
                               x.writes ? "write" : "read", describe(b.ops[j], y.where),
                               y.writes ? "write" : "read");
  return {};
}

CheckingDevice::CheckingDevice(Device& inner) : ForwardingDevice(inner) {}

RegisteredSpace CheckingDevice::register_space(const SpaceInfo& info) {
  const RegisteredSpace registered = inner_.register_space(info);
  if (registered.status == Status::ok) {
    spaces_.resize(registered.space.index + std::size_t{1});
    space_bytes_.resize(spaces_.size());
    spaces_.back() = info;
    space_bytes_.back() = info.bytes;
  }
  return registered;
}

Status CheckingDevice::protect(const Address& zone) {
  const bool writable = zone.space.index < spaces_.size() && live_.empty() &&
                        spaces_[zone.space.index].memory != nullptr &&
                        why_malformed(Fill{zone, 0}, space_bytes_).empty();
  if (!writable) return Status::rejected;
  std::memset(spaces_[zone.space.index].memory + zone.offset, static_cast<int>(kRedZone),
              static_cast<std::size_t>(zone.bytes));
  red_zones_.push_back(zone);
  return Status::ok;
}

Submitted CheckingDevice::submit(QueueId queue, std::span<const Op> ops,
                                 std::span<const Ticket> after) {
  if (queue.index >= queues().size()) return inner_.submit(queue, ops, after);
  Group group{.queue = queue.index, .clock = last_[queue.index], .ops = {ops.begin(), ops.end()}};
  join(group.clock, collected_);
  for (const Ticket ticket : after)
    if (const auto live = live_.find(ticket.id); live != live_.end())
      join(group.clock, live->second.clock);
  if (!well_formed(ops)) return {Status::rejected, {}};
  for (const Op& op : ops) group.touched.push_back(touched(op));
  if (!ordered(group)) return {Status::rejected, {}};

  std::vector<Op> poisoned;
  for (const Op& op : ops) {
    for (const auto& [where, writes] : accesses(op))
      if (writes && overwrites(op) && !std::holds_alternative<Fill>(op))
        poisoned.push_back(Fill{where, kPoison});
    poisoned.push_back(op);
  }
  const Submitted submitted = inner_.submit(queue, poisoned, after);
  if (submitted.status == Status::ok) {
    group.clock[queue.index] = last_[queue.index][queue.index] + 1;
    last_[queue.index] = group.clock;
    live_.emplace(submitted.ticket.id, std::move(group));
  }
  return submitted;
}

std::optional<Completion> CheckingDevice::next_completion(Nanos timeout_ns) {
  const Nanos from_ns = inner_.now();
  const auto completion = inner_.next_completion(timeout_ns);
  if (!completion) {
    // Before its time: nothing is outstanding, and what has not been reported never will be.
    if (inner_.now() - from_ns < std::min(timeout_ns, kMaxWaitNanos)) {
      for (const auto& [ticket, group] : live_) join(collected_, group.clock);
      live_.clear();
    }
    return completion;
  }
  const auto live = live_.find(completion->ticket.id);
  if (live == live_.end()) {
    report(Finding::Kind::completion,
           fmt::format("completion of group {}, which is not outstanding", completion->ticket.id));
    return completion;
  }
  join(collected_, live->second.clock);
  live_.erase(live);
  check_red_zones(completion->ticket);
  return completion;
}

void CheckingDevice::report(Finding::Kind kind, std::string message) {
  if (findings_.size() < kMaxFindings) findings_.push_back({kind, std::move(message)});
}

bool CheckingDevice::well_formed(std::span<const Op> ops) {
  for (const Op& op : ops) {
    if (auto complaint = why_malformed(op, space_bytes_); !complaint.empty()) {
      report(Finding::Kind::malformed, std::move(complaint));
      return false;
    }
    for (const auto& [where, writes] : accesses(op))
      for (const Address& zone : red_zones_)
        if (overlap(where, zone)) {
          report(Finding::Kind::red_zone, describe(op, where) + " names a red zone");
          return false;
        }
  }
  return true;
}

bool CheckingDevice::ordered(const Group& group) {
  for (const auto& [ticket, other] : live_) {
    if (other.clock[other.queue] <= group.clock[other.queue]) continue;
    if (const std::string what = conflict(group, other); !what.empty()) {
      report(Finding::Kind::hazard,
             fmt::format("a new group on queue {} and group {} on queue {} are not ordered: {}",
                         group.queue, ticket, other.queue, what));
      return false;
    }
  }
  return true;
}

void CheckingDevice::check_red_zones(Ticket after) {
  for (const Address& zone : red_zones_) {
    std::byte* begin = spaces_[zone.space.index].memory + zone.offset;
    std::byte* end = begin + zone.bytes;
    const auto* changed = std::find_if(begin, end, [](std::byte b) { return b != kRedZone; });
    if (changed == end) continue;
    report(Finding::Kind::red_zone,
           fmt::format("byte {} of space {}, in a red zone, was written before group {} ended",
                       zone.offset + (changed - begin), zone.space.index, after.id));
    std::fill(begin, end, kRedZone);
  }
}

}  // namespace modalkv
