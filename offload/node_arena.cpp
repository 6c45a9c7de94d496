#include "offload/node_arena.hpp"

#include <sched.h>
#include <tbb/parallel_for.h>
#include <tbb/task_arena.h>
#include <tbb/task_scheduler_observer.h>

#include <atomic>
#include <vector>

namespace modalkv {
namespace {

// TBB's own binding needs a library beside it, and does nothing where that is missing.
class Binder final : public tbb::task_scheduler_observer {
 public:
  Binder(tbb::task_arena& arena, std::span<const int> cpus)
      : task_scheduler_observer(arena), before_(static_cast<std::size_t>(arena.max_concurrency())) {
    CPU_ZERO(&cpus_);
    for (const int cpu : cpus) CPU_SET(static_cast<unsigned>(cpu), &cpus_);
    observe(true);
  }
  ~Binder() override { observe(false); }

  void on_scheduler_entry(bool) override {
    cpu_set_t& before = before_of_this_thread();
    if (sched_getaffinity(0, sizeof before, &before) != 0) CPU_ZERO(&before);
    if (sched_setaffinity(0, sizeof cpus_, &cpus_) != 0)
      unbound_.fetch_add(1, std::memory_order_relaxed);
  }
  void on_scheduler_exit(bool) override {
    const cpu_set_t& before = before_of_this_thread();
    if (CPU_COUNT(&before) > 0) sched_setaffinity(0, sizeof before, &before);
  }
  std::int64_t unbound() const { return unbound_.load(std::memory_order_relaxed); }

 private:
  cpu_set_t& before_of_this_thread() {
    return before_[static_cast<std::size_t>(tbb::this_task_arena::current_thread_index())];
  }

  cpu_set_t cpus_{};
  std::vector<cpu_set_t> before_;  // a place in the arena
  std::atomic<std::int64_t> unbound_ = 0;
};

}  // namespace

class NodeArena::Impl {
 public:
  explicit Impl(int threads) : arena_(threads) { arena_.initialize(); }
  explicit Impl(std::span<const int> cpus) : Impl(static_cast<int>(cpus.size())) {
    binder_ = std::make_unique<Binder>(arena_, cpus);
  }

  int threads() const { return arena_.max_concurrency(); }
  std::int64_t unbound() const { return binder_ ? binder_->unbound() : 0; }
  void run(int calls, const std::function<void()>& work) {
    if (calls == 1 && !binder_) return work();
    arena_.execute([&] { tbb::parallel_for(0, calls, [&](int) { work(); }); });
  }

 private:
  tbb::task_arena arena_;
  std::unique_ptr<Binder> binder_;  // observes the arena
};

NodeArena::NodeArena(int threads) : impl_(std::make_unique<Impl>(threads)) {}
NodeArena::NodeArena(std::span<const int> cpus) : impl_(std::make_unique<Impl>(cpus)) {}
NodeArena::~NodeArena() = default;

int NodeArena::threads() const {
  return impl_->threads();
}
void NodeArena::run(int calls, const std::function<void()>& work) {
  impl_->run(calls, work);
}
std::int64_t NodeArena::unbound() const {
  return impl_->unbound();
}

}  // namespace modalkv
