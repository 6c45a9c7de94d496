#include "offload/queue_threads.hpp"

#include <algorithm>
#include <utility>

#include "offload/host_effects.hpp"
#include "offload/link_pace.hpp"

namespace modalkv {
namespace {

// Words of the engine and of a GPU are raised without telling us: while one is awaited, look this
// often; at first, where a GPU works, without sleeping, as its groups are short.
constexpr auto kPoll = std::chrono::microseconds(20);
constexpr auto kSpin = std::chrono::microseconds(20);

// Nobody looks at it: no clock overflows.
std::chrono::steady_clock::time_point far() {
  return std::chrono::steady_clock::now() + std::chrono::hours(1);
}

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

QueueThreads::QueueThreads(std::vector<QueueInfo> queues, Elsewhere* elsewhere)
    : infos_(queues), elsewhere_(elsewhere), book_(std::move(queues)) {
  for (const QueueInfo& info : infos_)
    if (info.threads < 1 || !(info.copy_bytes_per_s >= 0) || info.copy_ns < 0)
      throw Error("a queue needs a thread, and copies that take no negative time");
}

void QueueThreads::start(std::span<const std::size_t> queues) {
  for (const std::size_t q : queues)
    workers_.emplace_back([this, q](std::stop_token stop) { run_queue(q, stop); });
  if (elsewhere_ == nullptr) return;
  workers_.emplace_back([this](std::stop_token stop) {
    std::unique_lock lock(mutex_);
    while (!stop.stop_requested()) wait(lock, stop, far(), true, [] { return false; });
  });
}

void QueueThreads::stop() {
  {
    // At once for all: a copy whose sleep ends early is no reason to begin what waits for it.
    const std::lock_guard lock(mutex_);
    for (std::jthread& worker : workers_) worker.request_stop();
  }
  workers_.clear();
}

RegisteredSpace QueueThreads::register_space(const SpaceInfo& info) {
  const std::lock_guard lock(mutex_);
  return book_.register_space(info, true);
}

Submitted QueueThreads::submit(QueueId queue, std::span<const Op> ops,
                               std::span<const Ticket> after) {
  const std::lock_guard lock(mutex_);
  const Submitted submitted = book_.submit(queue, ops, after, 0);
  if (submitted.status == Status::ok) changed_.notify_all();
  return submitted;
}

std::optional<Completion> QueueThreads::next_completion(Nanos timeout_ns) {
  const auto until =
      Clock::now() + std::chrono::nanoseconds(std::clamp(timeout_ns, Nanos{0}, kMaxWaitNanos));
  std::unique_lock lock(mutex_);
  std::optional<Completion> completion;
  wait(lock, {}, until, elsewhere_ != nullptr, [&] {
    completion = book_.collect();
    return completion || !book_.any_outstanding();
  });
  return completion;
}

Nanos QueueThreads::now() const {
  return std::chrono::nanoseconds(Clock::now() - start_).count();
}

Submitted QueueThreads::import_event(EngineEvent event) {
  const std::lock_guard lock(mutex_);
  return book_.import_event(event);
}

Status QueueThreads::export_event(Ticket ticket, EngineEvent event) {
  const std::lock_guard lock(mutex_);
  return book_.export_event(ticket, event);
}

// What has happened without our being told. Whether more will.
bool QueueThreads::look() {
  bool moved = false;
  for (const Ticket event : book_.reached_events()) {
    moved = true;
    if (elsewhere_ != nullptr) elsewhere_->reached(event);
  }
  bool again = false;
  if (elsewhere_ != nullptr) {
    const Elsewhere::Seen seen = elsewhere_->look(book_);
    moved |= seen.moved;
    again = seen.again;
  }
  if (moved) changed_.notify_all();
  return again;
}

// Until `done`, a time, or a wish to stop. `watches`: looks for what nobody
// tells of meanwhile.
template <typename Done>
void QueueThreads::wait(std::unique_lock<std::mutex>& lock, const std::stop_token& stop,
                        Clock::time_point until, bool watches, Done&& done) {
  const auto began = Clock::now();
  while (!stop.stop_requested()) {
    const bool runs_elsewhere = look();
    if (done()) return;
    const auto now = Clock::now();
    if (now >= until) return;
    if (watches && runs_elsewhere && now - began < kSpin) {
      lock.unlock();
      std::this_thread::yield();
      lock.lock();
      continue;
    }
    const bool polls = watches && (runs_elsewhere || book_.waits_for_events());
    // Until somebody changes something.
    bool looked = false;
    changed_.wait_until(lock, stop, polls ? std::min(until, now + kPoll) : until,
                        [&] { return std::exchange(looked, true); });
  }
}

void QueueThreads::run_queue(std::size_t queue, std::stop_token stop) {
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
    const Front front = book_.front(queue);
    if (front == Front::none || front == Front::waits) {
      wait(lock, stop, far(), front == Front::waits, [&] { return book_.front(queue) != front; });
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
    const Ticket ticket = book_.front_group(queue).ticket;
    book_.finish_front(queue, status, now());
    if (elsewhere_ != nullptr) elsewhere_->ended(book_, ticket);
    changed_.notify_all();
  }
}

}  // namespace modalkv
