// What decorators of a device share: every call goes to the inner device.
#pragma once

#include "offload/device.hpp"

namespace modalkv {

/// The inner device must outlive this one and be used through it alone.
class ForwardingDevice : public Device {
 public:
  std::span<const QueueInfo> queues() const override { return inner_.queues(); }
  RegisteredSpace register_space(const SpaceInfo& info) override {
    return inner_.register_space(info);
  }
  Submitted submit(QueueId queue, std::span<const Op> ops, std::span<const Ticket> after) override {
    return inner_.submit(queue, ops, after);
  }
  std::optional<Completion> next_completion(Nanos timeout_ns) override {
    return inner_.next_completion(timeout_ns);
  }
  Nanos now() const override { return inner_.now(); }
  Submitted import_event(EngineEvent event) override { return inner_.import_event(event); }
  Status export_event(Ticket ticket, EngineEvent event) override {
    return inner_.export_event(ticket, event);
  }

 protected:
  explicit ForwardingDevice(Device& inner) : inner_(inner) {}

  Device& inner_;
};

}  // namespace modalkv
