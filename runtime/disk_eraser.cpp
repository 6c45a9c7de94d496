#include "runtime/disk_eraser.hpp"

#include <algorithm>

#include "offload/page_seal.hpp"

namespace modalkv {
namespace {

constexpr Nanos kShortestPause = kMillisecond, kLongestPause = kSecond;

}  // namespace

void DiskEraser::add(const PageKey& key) {
  if (!pages_.insert(key).second) return;
  bytes_ += stored_bytes(key.shape);
  waiting_.push_back(key);
}

void DiskEraser::feed() {
  if (waiting_.empty() || (pause_ns_ > 0 && Clock::now() < resume_)) return;
  for (std::size_t tries = std::min(waiting_.size(), disk_.max_operations()); tries > 0; --tries) {
    const PageKey key = waiting_.front();
    const Submitted submitted = disk_.erase(key);
    // What is there can be erased, so it is the operations that are all in use.
    if (submitted.status == Status::busy && disk_.contains(key)) return;
    waiting_.pop_front();
    if (submitted.status == Status::ok) {
      running_.emplace(submitted.ticket.id, key);
    } else if (submitted.status == Status::busy) {
      waiting_.push_back(key);  // it is being stored or erased still
    } else {
      remove(key);
    }
  }
}

std::optional<DiskEraser::Ended> DiskEraser::settle(const Completion& completion) {
  const auto found = running_.find(completion.ticket.id);
  if (found == running_.end()) return std::nullopt;
  const Ended ended{found->second, completion.status};
  running_.erase(found);
  if (ended.status == Status::ok) {
    remove(ended.key);
    pause_ns_ = 0;
  } else {
    waiting_.push_back(ended.key);
    pause_ns_ = std::clamp(2 * pause_ns_, kShortestPause, kLongestPause);
    resume_ = Clock::now() + std::chrono::nanoseconds(pause_ns_);
  }
  return ended;
}

void DiskEraser::remove(const PageKey& key) {
  bytes_ -= stored_bytes(key.shape);
  pages_.erase(key);
}

}  // namespace modalkv
