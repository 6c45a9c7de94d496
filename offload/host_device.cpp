#include "offload/host_device.hpp"

#include <algorithm>

#include "offload/host_effects.hpp"
#include "offload/link_pace.hpp"

namespace modalkv {
namespace {

// Words of the engine are raised without telling us: while one is awaited, look this often.
constexpr auto kEventPoll = std::chrono::microseconds(20);

// Sleeps until a time, or until it is to stop.
class Sleep {
 public:
  void until(std::chrono::steady_clock::time_point time, const std::stop_token& stop) {
    std::unique_lock lock(mutex_);
    never_.wait_until(lock, stop, time, [] { return false; });
  }

 private:
  std::mutex mutex_;
  std::condition_variable_any never_;
};

}  // namespace

HostDevice::HostDevice(std::vector<QueueInfo> queues) : infos_(queues), book_(std::move(queues)) {
  for (const QueueInfo& info : infos_)
    if (info.threads < 1 || !(info.copy_bytes_per_s >= 0) || info.copy_ns < 0)
      throw Error("a queue needs a thread, and copies that take no negative time");
  for (std::size_t q = 0; q < infos_.size(); ++q)
    workers_.emplace_back([this, q](std::stop_token stop) { run_queue(q, stop); });
}

HostDevice::~HostDevice() {
  {
    // At once for all: a copy whose sleep ends early is no reason to begin what waits for it.
    const std::lock_guard lock(mutex_);
    for (std::jthread& worker : workers_) worker.request_stop();
  }
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
  const QueueInfo& info = infos_[queue];
  const bool divides = info.kind == QueueKind::host;
  std::optional<HostEffects> made;
  if (divides && !info.cpus.empty()) {
    made.emplace(std::span(info.cpus));
  } else {
    made.emplace(divides ? info.threads : 1);
  }
  HostEffects& effects = *made;
  LinkPace link(info.copy_bytes_per_s, info.copy_ns);
  link.idle_until(now());
  const bool paced = info.copy_bytes_per_s > 0 || info.copy_ns > 0;
  Sleep sleep;
  const auto run = [&](const Op& op, SpaceMemory memory) {
    const auto* copy = std::get_if<Copy>(&op);
    const Nanos end_ns = paced && copy != nullptr ? link.end_of(copy->to.bytes, now()) : 0;
    const Status status = effects.perform(op, memory);
    if (end_ns > 0) sleep.until(start_ + std::chrono::nanoseconds(end_ns), stop);
    return status;
  };
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
      link.idle_until(now());
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
        status = run(op, memory);
        lock.lock();
      }
    }
    book_.finish_front(queue, status, now());
    changed_.notify_all();
  }
}

}  // namespace modalkv
