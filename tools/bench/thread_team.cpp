#include "tools/bench/thread_team.hpp"

#include <pthread.h>
#include <sched.h>

#include <algorithm>
#include <chrono>
#include <cstddef>

namespace modalkv {
namespace {

Nanos now_ns() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

// Where it is refused, the scheduler's choice stands.
void bind_to(int cpu) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(cpu, &set);
  pthread_setaffinity_np(pthread_self(), sizeof set, &set);
}

}  // namespace

ThreadTeam::ThreadTeam(std::span<const int> cpus) : spans_(cpus.size()) {
  for (std::size_t i = 0; i < cpus.size(); ++i)
    threads_.emplace_back([this, i, cpu = cpus[i]] {
      bind_to(cpu);
      serve(static_cast<int>(i));
    });
}

ThreadTeam::~ThreadTeam() {
  const std::lock_guard lock(mutex_);
  ending_ = true;
  changed_.notify_all();
}

Nanos ThreadTeam::run(const std::function<void(int)>& work) {
  std::unique_lock lock(mutex_);
  work_ = &work;
  working_ = threads();
  asleep_ = threads();
  ++round_;
  changed_.notify_all();
  changed_.wait(lock, [&] { return working_ == 0; });
  Span all = spans_.front();
  for (const Span& span : spans_)
    all = {std::min(all.begin, span.begin), std::max(all.end, span.end)};
  return all.end - all.begin;
}

void ThreadTeam::serve(int thread) {
  for (std::uint64_t served = 0;;) {
    const std::function<void(int)>* work;
    {
      std::unique_lock lock(mutex_);
      changed_.wait(lock, [&] { return ending_ || round_ != served; });
      if (ending_) return;
      served = round_;
      work = work_;
    }
    // Waking takes longer than some measurements: nobody begins before the last is awake.
    --asleep_;
    while (asleep_ > 0) std::this_thread::yield();
    Span span{now_ns()};
    (*work)(thread);
    span.end = now_ns();
    const std::lock_guard lock(mutex_);
    spans_[static_cast<std::size_t>(thread)] = span;
    if (--working_ == 0) changed_.notify_all();
  }
}

}  // namespace modalkv
