// What the disk is given next: pages of loads, then erasures, then pages of stores.
#include <algorithm>

#include "offload/page_seal.hpp"
#include "runtime/disk_tier.hpp"

namespace modalkv {

void DiskTier::feed() {
  feed_loads();
  feed_victims();
  eraser_.feed();
  feed_stores();
}

/// Whether a job that cannot go on may wait; it ends where it has waited too long.
bool DiskTier::keeps_waiting(Job& job) {
  const Nanos now_ns = now();
  if (job.waits_since_ns == 0) job.waits_since_ns = now_ns;
  if (now_ns - job.waits_since_ns < config_.stall_ns) return true;
  job.status = Status::timeout;
  return false;
}

void DiskTier::started(Job& job, const PageKey& key, Ticket ticket) {
  const std::uint64_t number = job.kind == Kind::load ? loads_.front() : stores_.front();
  operations_.emplace(ticket.id, Operation{job.kind, number, {}, key});
  ++job.next;
  ++job.running;
  job.waits_since_ns = 0;
}

/// The head of its queue needs no more feeding.
void DiskTier::leave(std::deque<std::uint64_t>& queue, Job& job) {
  const std::uint64_t number = queue.front();
  queue.pop_front();
  job.is_queued = false;
  end_if_done(number);
}

void DiskTier::feed_loads() {
  while (!loads_.empty()) {
    Job& job = jobs_.at(loads_.front());
    while (job.status == Status::ok && job.next < job.pages.size()) {
      const TierPage& page = job.pages[job.next];
      const Submitted submitted = disk_.load(page.key, page.memory);
      if (submitted.status == Status::ok) {
        started(job, page.key, submitted.ticket);
      } else if (submitted.status == Status::busy) {
        if (keeps_waiting(job)) return;
      } else {  // it was here: the disk has found it damaged since
        job.status = Status::checksum;
        if (DiskUnit* unit = units_.find(job.unit)) give_up(*unit);
      }
    }
    leave(loads_, job);
  }
}

// A victim that cannot be erased stays, with the pages that are left.
void DiskTier::feed_victims() {
  while (!victims_.empty()) {
    DiskUnit* unit = units_.find(victims_.front());
    if (unit != nullptr && !unit->is_leaving) unit = nullptr;  // it stays: an erasure has failed
    while (unit != nullptr && unit->erased == Status::ok && !unit->pages.empty()) {
      const PageKey key = *unit->pages.begin();
      const Submitted submitted = disk_.erase(key);
      if (submitted.status == Status::busy && disk_.contains(key)) return;
      units_.remove_page(*unit, key);
      if (submitted.status == Status::ok) {
        operations_.emplace(submitted.ticket.id, Operation{Kind::evict, 0, unit->id, key});
        ++unit->erasing;
      } else if (submitted.status == Status::busy) {
        eraser_.add(key);  // given up by the disk just now
      } else {
        ++counters_.evicted_pages;
      }
    }
    victims_.pop_front();
    if (unit != nullptr) end_victim(*unit);
  }
}

// One after another, so that free bytes are nobody's; the next one begins once all pages of the one
// before it are under way.
void DiskTier::feed_stores() {
  while (!stores_.empty()) {
    Job& job = jobs_.at(stores_.front());
    bool goes_on = true;
    if (job.status == Status::ok && !job.has_begun) begin_store(job);
    if (job.status == Status::ok && !job.has_room) goes_on = job.has_begun && take_room(job);
    while (goes_on && job.status == Status::ok && job.next < job.pages.size())
      goes_on = feed_page(job);
    if (!goes_on && job.status == Status::ok && keeps_waiting(job)) return;
    leave(stores_, job);
  }
}

/// The store that is being fed.
DiskTier::Job* DiskTier::storing() {
  if (stores_.empty()) return nullptr;
  Job& job = jobs_.at(stores_.front());
  return job.has_begun ? &job : nullptr;
}

// Not as long as another store of the content may still fail, or its unit may still go.
void DiskTier::begin_store(Job& job) {
  if (std::find(storing_.begin(), storing_.end(), job.content) != storing_.end()) return;
  DiskUnit* unit = units_.find(job.content);
  if (unit != nullptr && unit->is_leaving) return;
  if (unit != nullptr && std::any_of(job.pages.begin(), job.pages.end(), [&](const TierPage& page) {
        return unit->pages.contains(page.key) && !disk_.contains(page.key);
      })) {
    give_up(*unit);
    unit = nullptr;
  }
  if (unit != nullptr)
    std::erase_if(job.pages, [&](const TierPage& page) { return unit->pages.contains(page.key); });
  for (const TierPage& page : job.pages) job.added_bytes += stored_bytes(page.key.shape);
  EvictionFacts facts = job.facts;
  facts.bytes = job.added_bytes + (unit != nullptr ? unit->facts.bytes : 0);
  if (unit == nullptr) {
    unit = &units_.add(job.content, facts);
  } else {
    units_.change(*unit, facts);
  }
  units_.pin(*unit);
  unit->store_job = stores_.front();
  storing_.push_back(job.content);
  job.unit = unit->id;
  job.has_begun = true;
  ++begun_;
}

/// Before the first page: what is written while there are only pieces would keep larger pages out.
bool DiskTier::take_room(Job& job) {
  const Bytes missing_bytes = job.added_bytes - disk_.free_bytes();
  job.has_room = missing_bytes <= 0;
  if (job.has_room) return true;
  if (units_.leaving() > 0 || eraser_.running() > 0) return false;
  if (missing_bytes <= units_.evictable_bytes()) {
    evict(missing_bytes);
  } else if (begun_ == 1) {
    job.status = Status::no_space;  // and nobody else will let go of a unit
  }
  return false;
}

/// False where it has to wait.
bool DiskTier::feed_page(Job& job) {
  const TierPage& page = job.pages[job.next];
  if (eraser_.contains(page.key)) return false;
  const Submitted submitted = disk_.store(page.key, page.memory);
  switch (submitted.status) {
    case Status::ok:
      started(job, page.key, submitted.ticket);
      return true;
    case Status::rejected:  // here already
      ++job.next;
      return true;
    case Status::no_space:
      return make_room(job);
    default:
      return false;
  }
}

/// The disk is free in pieces only, or has as many pages as it may: a unit after another. Never
/// goes on at once.
bool DiskTier::make_room(Job& job) {
  if (units_.leaving() > 0 || eraser_.running() > 0) return false;
  if (units_.evictable_bytes() > 0) {
    evict(1);
  } else if (begun_ == 1) {
    job.status = Status::no_space;
  }
  return false;
}

void DiskTier::evict(Bytes bytes) {
  for (const UnitId id : units_.evict(bytes)) {
    victims_.push_back(id);
    lost_.push_back(units_.find(id)->content);
  }
  feed_victims();
}

}  // namespace modalkv
