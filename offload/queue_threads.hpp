// Queues whose groups run on threads of this process: one thread a queue, and helpers of a host
// queue while it attends. Keeps the book of all groups of a device, also of those that end
// elsewhere.
#pragma once

#include <chrono>
#include <condition_variable>
#include <mutex>
#include <thread>
#include <vector>

#include "offload/group_book.hpp"

namespace modalkv {

/// The calls of a Device, for its devices: see there. What an operation does is
/// HostEffects::perform(). Where a queue's copies are to take their time
/// (QueueInfo::copy_bytes_per_s), the bytes are copied at once and the queue then sleeps: a group
/// completes when the link would have delivered it, and what waits for it begins no earlier.
class QueueThreads {
 public:
  /// Where groups of the other queues run: a GPU. It tells nobody what has ended, so who waits
  /// looks. Called with the lock of the book.
  class Elsewhere {
   public:
    struct Seen {
      bool moved = false;  ///< the book has changed
      bool again = false;  ///< look again soon: something runs there
    };
    virtual Seen look(GroupBook& book) = 0;
    /// A group of a thread's queue has ended.
    virtual void ended(GroupBook& book, Ticket ticket) = 0;
    /// An imported event has happened.
    virtual void reached(Ticket event) = 0;

   protected:
    ~Elsewhere() = default;
  };

  /// Throws Error where a queue has no threads or a copy a negative speed or time.
  explicit QueueThreads(std::vector<QueueInfo> queues, Elsewhere* elsewhere = nullptr);
  ~QueueThreads() { stop(); }
  QueueThreads(QueueThreads&&) = delete;

  /// Threads for these queues, and one that looks elsewhere. The others' groups end elsewhere.
  void start(std::span<const std::size_t> queues);
  /// Ends the operations that run, drops those that do not.
  void stop();

  std::span<const QueueInfo> queues() const { return infos_; }
  RegisteredSpace register_space(const SpaceInfo& info);
  Submitted submit(QueueId queue, std::span<const Op> ops, std::span<const Ticket> after);
  std::optional<Completion> next_completion(Nanos timeout_ns);
  Nanos now() const;
  Submitted import_event(EngineEvent event);
  Status export_event(Ticket ticket, EngineEvent event);

  /// `call(book)` under the lock; afterwards all who wait look anew.
  template <typename Call>
  auto with_book(Call&& call) {
    const std::lock_guard lock(mutex_);
    changed_.notify_all();
    return call(book_);
  }

 private:
  using Clock = std::chrono::steady_clock;

  void run_queue(std::size_t queue, std::stop_token stop);
  bool look();
  template <typename Done>
  void wait(std::unique_lock<std::mutex>& lock, const std::stop_token& stop,
            Clock::time_point until, bool watches, Done&& done);

  const Clock::time_point start_ = Clock::now();
  const std::vector<QueueInfo> infos_;
  Elsewhere* const elsewhere_;
  std::mutex mutex_;  // of book_
  std::condition_variable_any changed_;
  GroupBook book_;
  std::vector<std::jthread> workers_;  // last: they end before what they use
};

}  // namespace modalkv
