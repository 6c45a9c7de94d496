// A device of real threads on real bytes: one thread a queue, and helpers of a host queue while it
// attends. The "GPU" is memory of this process.
#pragma once

#include <vector>

#include "offload/queue_threads.hpp"

namespace modalkv {

/// Every space needs memory. Destroying it ends the operations that run, drops those that do not,
/// and raises the words that were exported for them. Copies may take their time (QueueThreads).
class HostDevice final : public Device {
 public:
  /// Throws Error where a queue has no threads or a copy a negative speed or time.
  explicit HostDevice(std::vector<QueueInfo> queues = standard_queues(1));
  ~HostDevice() override;

  std::span<const QueueInfo> queues() const override { return threads_.queues(); }
  RegisteredSpace register_space(const SpaceInfo& info) override {
    return threads_.register_space(info);
  }
  Submitted submit(QueueId queue, std::span<const Op> ops, std::span<const Ticket> after) override {
    return threads_.submit(queue, ops, after);
  }
  std::optional<Completion> next_completion(Nanos timeout_ns) override {
    return threads_.next_completion(timeout_ns);
  }
  Nanos now() const override { return threads_.now(); }
  Submitted import_event(EngineEvent event) override { return threads_.import_event(event); }
  Status export_event(Ticket ticket, EngineEvent event) override {
    return threads_.export_event(ticket, event);
  }

 private:
  QueueThreads threads_;
};

}  // namespace modalkv
