// A device on which every operation has ended as soon as it is submitted: what remains is the time
// of whoever submits.
#pragma once

#include <deque>
#include <vector>

#include "offload/device.hpp"

namespace modalkv {

class NullDevice final : public Device {
 public:
  std::span<const QueueInfo> queues() const override { return infos_; }
  RegisteredSpace register_space(const SpaceInfo&) override { return {Status::ok, {spaces_++}}; }
  Submitted submit(QueueId, std::span<const Op>, std::span<const Ticket>) override {
    done_.push_back({{++last_}, Status::ok, 0});
    return {Status::ok, {last_}};
  }
  std::optional<Completion> next_completion(Nanos) override {
    if (done_.empty()) return {};
    const Completion completion = done_.front();
    done_.pop_front();
    return completion;
  }
  Nanos now() const override { return 0; }
  Submitted import_event(EngineEvent) override { return {Status::unsupported, {}}; }
  Status export_event(Ticket, EngineEvent) override { return Status::unsupported; }

 private:
  std::vector<QueueInfo> infos_ = standard_queues(1);
  std::uint16_t spaces_ = 0;
  std::uint64_t last_ = 0;
  std::deque<Completion> done_;
};

}  // namespace modalkv
