#include "tools/bench/replayed_step.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <deque>
#include <utility>
#include <variant>

#include "modalkv/error.hpp"

namespace modalkv {
namespace {

constexpr Nanos kPatienceNanos = 20 * kSecond;
constexpr int kStepsAhead = 2;

// The smallest range that holds all that is copied to the device.
Address filled(const std::vector<RecordedGroup>& step, QueueId h2d) {
  Address range{};
  for (const RecordedGroup& group : step) {
    if (group.queue != h2d) continue;
    for (const Op& op : group.ops) {
      const Address& to = std::get<Copy>(op).to;
      if (range.bytes == 0) range = to;
      const Bytes begin = std::min(range.offset, to.offset);
      range.bytes = std::max(range.offset + range.bytes, to.offset + to.bytes) - begin;
      range.offset = begin;
    }
  }
  if (range.bytes == 0) throw Error("the step to take apart copies nothing");
  return range;
}

// Runs the groups of one queue again and again.
class Lane {
 public:
  Lane(HostDevice& device, QueueId queue, std::vector<std::vector<Op>> groups)
      : device_(device), queue_(queue), groups_(std::move(groups)) {}

  void feed() {
    while (outstanding_.size() < kStepsAhead * groups_.size()) {
      const Submitted submitted = device_.submit(queue_, groups_[next_], {});
      if (submitted.status == Status::busy) return;
      if (submitted.status != Status::ok)
        throw Error(fmt::format("a step taken apart is refused: {}", name(submitted.status)));
      next_ = (next_ + 1) % groups_.size();
      outstanding_.push_back({submitted.ticket, next_ == 0});
    }
  }
  // Whether the group was of this lane; they end in order.
  bool ended(const Completion& completion) {
    if (outstanding_.empty() || outstanding_.front().ticket != completion.ticket) return false;
    if (outstanding_.front().ends_step) ends_ns_.push_back(completion.at_ns);
    outstanding_.pop_front();
    return true;
  }
  bool idle() const { return outstanding_.empty(); }
  // From the first step's end on.
  int steps() const { return static_cast<int>(ends_ns_.size()) - 1; }
  std::vector<double> times_ms() const {
    std::vector<double> times;
    for (std::size_t i = 1; i < ends_ns_.size(); ++i)
      times.push_back(static_cast<double>(ends_ns_[i] - ends_ns_[i - 1]) / 1e6);
    return times;
  }

 private:
  struct Group {
    Ticket ticket{};
    bool ends_step = false;
  };

  HostDevice& device_;
  QueueId queue_;
  std::vector<std::vector<Op>> groups_;
  std::size_t next_ = 0;
  std::deque<Group> outstanding_;
  std::vector<Nanos> ends_ns_;
};

Completion next_of(HostDevice& device) {
  const auto completion = device.next_completion(kPatienceNanos);
  if (!completion) throw Error("a step taken apart does not end");
  if (completion->status != Status::ok)
    throw Error(fmt::format("a step taken apart ended in: {}", name(completion->status)));
  return *completion;
}

}  // namespace

ReplayedStep::ReplayedStep(HostDevice& device, const std::vector<RecordedGroup>& step)
    : device_(device),
      h2d_(*find_queue(device, QueueKind::h2d)),
      compute_(*find_queue(device, QueueKind::compute)),
      staging_(filled(step, h2d_)),
      twins_(2 * staging_.bytes + kChecksumBytes) {
  const RegisteredSpace space = device.register_space(
      {SpaceInfo::Kind::device, static_cast<Bytes>(twins_.bytes().size()), twins_.bytes().data()});
  if (space.status != Status::ok) throw Error("no memory of their own for copies taken apart");
  twins_space_ = space.space;
}

bool ReplayedStep::is_staged(const Address& address) const {
  return address.space == staging_.space && address.offset >= staging_.offset &&
         address.offset + address.bytes <= staging_.offset + staging_.bytes;
}

Address ReplayedStep::moved(const Address& address, Bytes by) const {
  if (!is_staged(address)) throw Error("a step to take apart stages elsewhere than at first");
  return {twins_space_, address.offset - staging_.offset + by, address.bytes};
}

ReplayedStep::Groups ReplayedStep::copies(const std::vector<RecordedGroup>& step, Bytes by) const {
  Groups groups;
  for (const RecordedGroup& group : step) {
    if (group.queue != h2d_ || group.ops.empty()) continue;
    std::vector<Op>& ops = groups.emplace_back();
    for (const Op& op : group.ops) {
      const Copy& copy = std::get<Copy>(op);
      ops.push_back(Copy{copy.from, moved(copy.to, by)});
    }
  }
  return groups;
}

ReplayedStep::Groups ReplayedStep::computing(const std::vector<RecordedGroup>& step) const {
  Groups groups;
  for (const RecordedGroup& group : step) {
    if (group.queue != compute_) continue;
    std::vector<Op> ops;
    for (const Op& op : group.ops)
      if (const auto again = repeatable(op)) ops.push_back(*again);
    if (!ops.empty()) groups.push_back(std::move(ops));
  }
  return groups;
}

// What appends and closes pages is not: it would do so twice.
std::optional<Op> ReplayedStep::repeatable(const Op& op) const {
  if (const auto* verify = std::get_if<VerifyPage>(&op)) {
    if (!is_staged(verify->page)) return op;
    // Another layer's page may lie there by now; it is read all the same.
    const Address checksum{twins_space_, 2 * staging_.bytes, kChecksumBytes};
    return Checksum{moved(verify->page, staging_.bytes), checksum};
  }
  if (const auto* attend = std::get_if<Attend>(&op)) {
    Attend again = *attend;
    if (is_staged(again.pages)) again.pages = moved(again.pages, staging_.bytes);
    return again;
  }
  if (std::holds_alternative<Merge>(op) || std::holds_alternative<Finish>(op)) return op;
  return {};
}

TimesApart ReplayedStep::run(const std::vector<RecordedGroup>& step, int steps) {
  const Groups filling = copies(step, staging_.bytes);
  for (const std::vector<Op>& group : filling)
    if (device_.submit(h2d_, group, {}).status != Status::ok)
      throw Error("a step taken apart is refused");
  for (std::size_t i = 0; i < filling.size(); ++i) next_of(device_);

  Lane copy(device_, h2d_, copies(step, 0)), compute(device_, compute_, computing(step));
  const auto collect = [&] {
    const Completion completion = next_of(device_);
    if (!copy.ended(completion)) compute.ended(completion);
  };
  while (copy.steps() < steps || compute.steps() < steps) {
    copy.feed();
    compute.feed();
    collect();
  }
  TimesApart times{copy.times_ms(), compute.times_ms()};
  while (!copy.idle() || !compute.idle()) collect();
  return times;
}

}  // namespace modalkv
