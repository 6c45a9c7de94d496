// Events between an engine and what works for it.
#pragma once

#include <atomic>
#include <cstdint>

namespace modalkv {

/// GPU and host wait for each other through words that both can see: the event has happened once
/// the word is at least `value`. Keep an awaited word alive until what waits for it has ended or
/// the device is gone; a raised one until it is raised. Where a GPU reaches the word (pinned
/// memory), it waits and raises itself, without the host between.
struct EngineEvent {
  std::atomic<std::uint64_t>* word = nullptr;
  std::uint64_t value = 0;
};

inline bool has_happened(const EngineEvent& event) {
  return event.word->load(std::memory_order_acquire) >= event.value;
}

/// Lets it happen, and wakes who waits on the word. A word never goes back.
inline void let_happen(const EngineEvent& event) {
  std::uint64_t seen = event.word->load(std::memory_order_relaxed);
  while (seen < event.value &&
         !event.word->compare_exchange_weak(seen, event.value, std::memory_order_release)) {
  }
  event.word->notify_all();
}

}  // namespace modalkv
