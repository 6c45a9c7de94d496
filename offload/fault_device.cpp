#include "offload/fault_device.hpp"

#include <algorithm>

#include "offload/validate.hpp"

namespace modalkv {
namespace {

constexpr std::uint8_t kGarbage = 0x5e;

}  // namespace

FaultDevice::FaultDevice(Device& inner, const FaultPlan& plan)
    : ForwardingDevice(inner), plan_(plan), random_(plan.seed) {}

RegisteredSpace FaultDevice::register_space(const SpaceInfo& info) {
  const RegisteredSpace registered = inner_.register_space(info);
  if (registered.status == Status::ok) {
    space_bytes_.resize(registered.space.index + std::size_t{1});
    space_bytes_.back() = info.bytes;
  }
  return registered;
}

Submitted FaultDevice::submit(QueueId queue, std::span<const Op> ops,
                              std::span<const Ticket> after) {
  const bool malformed = std::any_of(ops.begin(), ops.end(), [&](const Op& op) {
    return !why_malformed(op, space_bytes_).empty();
  });
  if (malformed) return {Status::rejected, {}};
  // A successor of an injected failure must be cancelled, and the inner device knows of none.
  const bool cancelled =
      std::any_of(after.begin(), after.end(), [&](Ticket t) { return failed(t); });
  const bool may_strike = !cancelled && (!plan_.strikes || plan_.strikes(queue, ops));
  const Fault fault = may_strike ? draw() : Fault::none;
  if (fault == Fault::busy) {
    ++injected_.busy;
    return {Status::busy, {}};
  }
  std::vector<Op> changed;
  if (fault == Fault::fail) {
    changed = garbage(ops);
  } else if (!cancelled) {
    changed = spoiled(ops, fault);
  }
  const Submitted submitted = inner_.submit(queue, changed, after);
  if (submitted.status != Status::ok) return submitted;
  switch (fault) {
    case Fault::fail:
      ++injected_.fail;
      fail(submitted.ticket, Status::io_error);
      break;
    case Fault::corrupt:
    case Fault::overrun:
      if (changed.size() > ops.size())
        ++(fault == Fault::corrupt ? injected_.corrupt : injected_.overrun);
      break;
    case Fault::late:
      ++injected_.late;
      late_.insert(submitted.ticket.id);
      break;
    case Fault::lost:
      ++injected_.lost;
      lost_.insert(submitted.ticket.id);
      break;
    case Fault::none:
    case Fault::busy:
      break;
  }
  if (cancelled) fail(submitted.ticket, Status::cancelled);
  return submitted;
}

std::optional<Completion> FaultDevice::next_completion(Nanos timeout_ns) {
  const Nanos deadline_ns = now() + std::clamp(timeout_ns, Nanos{0}, kMaxWaitNanos);
  while (auto completion = inner_.next_completion(std::max(Nanos{0}, deadline_ns - now()))) {
    for (const Completion& failure : failures_)
      if (failure.ticket == completion->ticket) completion->status = failure.status;
    if (lost_.erase(completion->ticket.id) > 0) continue;
    if (late_.erase(completion->ticket.id) == 0) return completion;
    withheld_.push_back(*completion);
  }
  if (withheld_.empty()) return std::nullopt;
  const Completion completion = withheld_.front();
  withheld_.pop_front();
  return completion;
}

FaultDevice::Fault FaultDevice::draw() {
  double left = static_cast<double>(random_() >> 11) * 0x1p-53;
  const double chances[] = {plan_.busy,    plan_.fail, plan_.corrupt,
                            plan_.overrun, plan_.late, plan_.lost};
  for (std::size_t i = 0; i < std::size(chances); ++i) {
    if (left < chances[i]) return static_cast<Fault>(i + 1);
    left -= chances[i];
  }
  return Fault::none;
}

bool FaultDevice::failed(Ticket ticket) const {
  return std::any_of(failures_.begin(), failures_.end(),
                     [&](const Completion& failure) { return failure.ticket == ticket; });
}

void FaultDevice::fail(Ticket ticket, Status status) {
  failures_.push_back({ticket, status, 0});
  if (failures_.size() > kRememberedFailures) failures_.pop_front();
}

std::vector<Op> FaultDevice::garbage(std::span<const Op> ops) const {
  std::vector<Op> fills;
  for (const Op& op : ops)
    for (const auto& [where, writes] : accesses(op))
      if (writes) fills.push_back(Fill{where, kGarbage});
  return fills;
}

std::vector<Op> FaultDevice::spoiled(std::span<const Op> ops, Fault fault) const {
  std::vector<Op> result(ops.begin(), ops.end());
  if (fault != Fault::corrupt && fault != Fault::overrun) return result;
  for (const Op& op : ops)
    for (const auto& [where, writes] : accesses(op)) {
      if (!writes) continue;
      const Bytes end = where.offset + where.bytes;
      const Address hit{where.space, fault == Fault::corrupt ? end - 1 : end, 1};
      if (hit.offset >= space_bytes_[where.space.index]) continue;
      result.push_back(Fill{hit, kGarbage});
      return result;
    }
  return result;
}

}  // namespace modalkv
