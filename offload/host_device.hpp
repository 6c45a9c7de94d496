// A device of real threads on real bytes: one thread a queue, and helpers of a host queue while it
// attends. The "GPU" is memory of this process.
#pragma once

#include <chrono>
#include <condition_variable>
#include <mutex>
#include <thread>
#include <vector>

#include "offload/group_book.hpp"

namespace modalkv {

/// Every space needs memory. Destroying it ends the operations that run, drops those that do not,
/// and raises the words that were exported for them.
///
/// What an operation does is HostEffects::perform(). Where a queue's copies are to take their time
/// (QueueInfo::copy_bytes_per_s), the bytes are copied at once and the queue then sleeps: a group
/// completes when the link would have delivered it, and what waits for it begins no earlier.
class HostDevice final : public Device {
 public:
  /// Throws Error where a queue has no threads or a copy a negative speed or time.
  explicit HostDevice(std::vector<QueueInfo> queues = standard_queues(1));
  ~HostDevice() override;

  std::span<const QueueInfo> queues() const override { return infos_; }
  RegisteredSpace register_space(const SpaceInfo& info) override;
  Submitted submit(QueueId queue, std::span<const Op> ops, std::span<const Ticket> after) override;
  std::optional<Completion> next_completion(Nanos timeout_ns) override;
  Nanos now() const override;
  Submitted import_event(EngineEvent event) override;
  Status export_event(Ticket ticket, EngineEvent event) override;

 private:
  void run_queue(std::size_t queue, std::stop_token stop);

  const std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
  const std::vector<QueueInfo> infos_;
  std::mutex mutex_;  // of book_
  std::condition_variable_any changed_;
  GroupBook book_;
  std::vector<std::jthread> workers_;  // last: they end before what they use
};

}  // namespace modalkv
