#include "tools/bench/replayed_step.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <deque>
#include <optional>
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

TimesApart ReplayedStep::run(const std::vector<RecordedGroup>& step, int steps) {
  std::vector<std::vector<Op>> copies, reads, computing;
  for (const RecordedGroup& group : step) {
    std::vector<Op> ops, second;
    for (const Op& op : group.ops) {
      if (group.queue == h2d_) {
        const Copy& copy = std::get<Copy>(op);
        ops.push_back(Copy{copy.from, moved(copy.to, 0)});
        second.push_back(Copy{copy.from, moved(copy.to, staging_.bytes)});
      } else if (group.queue != compute_) {
        continue;
      } else if (const auto* attend = std::get_if<Attend>(&op)) {
        Attend again = *attend;
        if (is_staged(again.pages)) again.pages = moved(again.pages, staging_.bytes);
        ops.push_back(again);
      } else if (const auto* verify = std::get_if<VerifyPage>(&op)) {
        // Another layer's pages may lie there by now.
        ops.push_back(Checksum{moved(verify->page, staging_.bytes),
                               {twins_space_, 2 * staging_.bytes, kChecksumBytes}});
      } else if (std::holds_alternative<Merge>(op) || std::holds_alternative<Finish>(op)) {
        ops.push_back(op);
      }
    }
    if (ops.empty()) continue;
    (group.queue == h2d_ ? copies : computing).push_back(std::move(ops));
    if (!second.empty()) reads.push_back(std::move(second));
  }
  for (const std::vector<Op>& group : reads)
    if (device_.submit(h2d_, group, {}).status != Status::ok)
      throw Error("a step taken apart is refused");
  for (std::size_t i = 0; i < reads.size(); ++i) next_of(device_);

  Lane copy(device_, h2d_, std::move(copies)), compute(device_, compute_, std::move(computing));
  while (copy.steps() < steps || compute.steps() < steps) {
    copy.feed();
    compute.feed();
    const Completion completion = next_of(device_);
    if (!copy.ended(completion)) compute.ended(completion);
  }
  TimesApart times{copy.times_ms(), compute.times_ms()};
  while (!copy.idle() || !compute.idle()) {
    const Completion completion = next_of(device_);
    if (!copy.ended(completion)) compute.ended(completion);
  }
  return times;
}

}  // namespace modalkv
