#include "offload/host_device.hpp"

#include <algorithm>

#include "kernels/effects.hpp"

namespace modalkv {
namespace {

// Words of the engine are raised without telling us: while one is awaited, look this often.
constexpr auto kEventPoll = std::chrono::microseconds(20);

}  // namespace

HostDevice::HostDevice(std::vector<QueueInfo> queues) : infos_(queues), book_(std::move(queues)) {
  for (std::size_t q = 0; q < infos_.size(); ++q)
    workers_.emplace_back([this, q](std::stop_token stop) { run_queue(q, stop); });
}

HostDevice::~HostDevice() {
  for (std::jthread& worker : workers_) worker.request_stop();
  workers_.clear();
  book_.abandon_exports();
}

RegisteredSpace HostDevice::register_space(const SpaceInfo& info) {
  const std::lock_guard lock(mutex_);
  return book_.register_space(info, true);
}

Submitted HostDevice::submit(QueueId queue, std::span<const Op> ops,
                             std::span<const Ticket> after) {
  const std::lock_guard lock(mutex_);
  const Submitted submitted = book_.submit(queue, ops, after, 0);
  if (submitted.status == Status::ok) changed_.notify_all();
  return submitted;
}

std::optional<Completion> HostDevice::next_completion(Nanos timeout_ns) {
  std::unique_lock lock(mutex_);
  std::optional<Completion> completion;
  changed_.wait_for(lock, std::chrono::nanoseconds(std::clamp(timeout_ns, Nanos{0}, kMaxWaitNanos)),
                    [&] {
                      completion = book_.collect();
                      return completion || !book_.any_outstanding();
                    });
  return completion;
}

Nanos HostDevice::now() const {
  return std::chrono::nanoseconds(std::chrono::steady_clock::now() - start_).count();
}

Submitted HostDevice::import_event(EngineEvent event) {
  const std::lock_guard lock(mutex_);
  return book_.import_event(event);
}

Status HostDevice::export_event(Ticket ticket, EngineEvent event) {
  const std::lock_guard lock(mutex_);
  return book_.export_event(ticket, event);
}

void HostDevice::run_queue(std::size_t queue, std::stop_token stop) {
  using Front = GroupBook::Front;
  std::unique_lock lock(mutex_);
  while (!stop.stop_requested()) {
    if (!book_.reached_events().empty()) changed_.notify_all();
    const Front front = book_.front(queue);
    if (front == Front::none || front == Front::waits) {
      const auto moved = [&] { return book_.front(queue) != front; };
      if (front == Front::waits && book_.waits_for_events()) {
        changed_.wait_for(lock, stop, kEventPoll, moved);
      } else {
        changed_.wait(lock, stop, moved);
      }
      continue;
    }
    Status status = Status::cancelled;
    if (front == Front::may_run) {
      const std::size_t ops = book_.front_group(queue).ops;
      const std::span memory = book_.memory();
      status = Status::ok;
      for (std::size_t i = 0; i < ops && status == Status::ok; ++i) {
        const Op op = book_.front_op(queue, i);
        lock.unlock();
        status = perform(op, memory);
        lock.lock();
      }
    }
    book_.finish_front(queue, status, now());
    changed_.notify_all();
  }
}

}  // namespace modalkv
