#include "runtime/disk_tier.hpp"

#include <algorithm>
#include <thread>

#include "offload/page_seal.hpp"

namespace modalkv {
namespace {

constexpr Nanos kLook = 10 * kMillisecond;  // between looks at what does not tell
constexpr Nanos kPoll = kMillisecond;       // likewise, where the disk owes nothing

}  // namespace

DiskTier::DiskTier(PageDisk& disk, const DiskTierConfig& config)
    : disk_(disk), config_(config), units_(config.policy), eraser_(disk) {
  units_.recover(disk.keys(), config.recovered_reload_ns);
  counters_.recovered_units = units_.size();
}

// The disk gives up a page by itself where a load that has timed out finds it damaged.
bool DiskTier::has(const DiskUnit& unit, const PageKey& key) const {
  return !unit.is_leaving && unit.pages.contains(key) && disk_.contains(key);
}

bool DiskTier::contains(std::span<const PageKey> keys) const {
  return std::all_of(keys.begin(), keys.end(), [&](const PageKey& key) {
    const DiskUnit* unit = units_.find(key.content);
    return unit != nullptr && has(*unit, key);
  });
}

Status DiskTier::check(std::span<const TierPage> pages) const {
  if (pages.empty()) return Status::rejected;
  for (const TierPage& page : pages)
    if (!is_key(page.key) || page.key.content != pages.front().key.content ||
        static_cast<Bytes>(page.memory.size()) != page_bytes(page.key.shape))
      return Status::rejected;
  return Status::ok;
}

Status DiskTier::check_store(std::span<const TierPage> pages) const {
  if (const Status status = check(pages); status != Status::ok) return status;
  std::unordered_set<PageKey, PageKeyHash> keys;
  Bytes bytes = 0;
  for (const TierPage& page : pages) {
    if (page_bytes(page.key.shape) > disk_.max_page_bytes() || !keys.insert(page.key).second)
      return Status::rejected;
    bytes += stored_bytes(page.key.shape);
  }
  const bool fits = bytes <= disk_.capacity_bytes() && pages.size() <= disk_.max_pages();
  return fits ? Status::ok : Status::no_space;
}

TierStarted DiskTier::queue(std::deque<std::uint64_t>& queue, Job job) {
  const std::uint64_t number = next_job_++;
  jobs_.emplace(number, std::move(job));
  queue.push_back(number);
  feed();
  return {Status::ok, number};
}

TierStarted DiskTier::store(std::span<const TierPage> pages, const EvictionFacts& facts) {
  if (facts.reload_ns < 0) return {Status::rejected, 0};
  if (const Status status = check_store(pages); status != Status::ok) {
    counters_.no_space_jobs += status == Status::no_space;
    return {status, 0};
  }
  if (jobs_.size() + outcomes_.size() >= config_.max_jobs) return {Status::busy, 0};
  Job job{};
  job.kind = Kind::store;
  job.content = pages.front().key.content;
  job.facts = facts;
  job.pages.assign(pages.begin(), pages.end());
  return queue(stores_, std::move(job));
}

TierStarted DiskTier::load(std::span<const TierPage> pages) {
  if (const Status status = check(pages); status != Status::ok) return {status, 0};
  DiskUnit* unit = units_.find(pages.front().key.content);
  if (unit == nullptr || !std::all_of(pages.begin(), pages.end(),
                                      [&](const TierPage& page) { return has(*unit, page.key); }))
    return {Status::rejected, 0};
  if (jobs_.size() + outcomes_.size() >= config_.max_jobs) return {Status::busy, 0};
  units_.pin(*unit);
  units_.touch(*unit);
  ++begun_;
  Job job{};
  job.content = unit->content;
  job.pages.assign(pages.begin(), pages.end());
  job.unit = unit->id;
  job.has_begun = true;
  return queue(loads_, std::move(job));
}

std::optional<UnitId> DiskTier::hold(const ContentId& content) {
  DiskUnit* unit = units_.find(content);
  if (unit == nullptr || unit->is_leaving) return {};
  units_.pin(*unit);
  return unit->id;
}

void DiskTier::let_go(UnitId unit) {
  if (DiskUnit* held = units_.find(unit)) units_.unpin(*held);
}

void DiskTier::forget() {
  for (auto& [number, job] : jobs_)
    if (job.status == Status::ok) job.status = Status::cancelled;
  for (const UnitId id : units_.ids()) {
    DiskUnit& unit = *units_.find(id);
    for (const PageKey& key : unit.pages) eraser_.add(key);
    units_.remove(unit);
  }
  feed();
}

// Pages that are being stored go when their job ends, pages that are being erased when that fails.
void DiskTier::give_up(DiskUnit& unit) {
  if (unit.store_job != 0)
    if (Job& job = jobs_.at(unit.store_job); job.status == Status::ok)
      job.status = Status::cancelled;
  for (const PageKey& key : unit.pages) eraser_.add(key);
  lost_.push_back(unit.content);
  units_.remove(unit);
  ++counters_.damaged_units;
}

std::optional<TierOutcome> DiskTier::next(Nanos timeout_ns) {
  const Nanos until_ns = now() + std::clamp(timeout_ns, Nanos{0}, kMaxWaitNanos);
  for (Nanos wait_ns = 0;;) {
    const bool any = collect(wait_ns);
    feed();
    if (!outcomes_.empty()) {
      const TierOutcome outcome = outcomes_.front();
      outcomes_.pop_front();
      return outcome;
    }
    wait_ns = std::min(until_ns - now(), kLook);
    if (idle() || wait_ns <= 0) return std::nullopt;
    // It waits for what the disk has reported already, or for an erasure's next try.
    if (!any && operations_.empty() && eraser_.running() == 0)
      std::this_thread::sleep_for(std::chrono::nanoseconds(std::min(wait_ns, kPoll)));
  }
}

bool DiskTier::collect(Nanos timeout_ns) {
  for (std::size_t count = 0; count < disk_.max_operations(); ++count) {
    const auto completion = disk_.next_completion(count == 0 ? timeout_ns : 0);
    if (!completion) return count > 0;
    settle(*completion);
  }
  return true;
}

void DiskTier::settle(const Completion& completion) {
  const auto found = operations_.find(completion.ticket.id);
  if (found == operations_.end()) {
    if (const auto ended = eraser_.settle(completion)) settle_erased(*ended);
    return;
  }
  const Operation operation = found->second;
  operations_.erase(found);
  if (operation.kind == Kind::evict) return settle_victim(operation, completion.status);
  Job& job = jobs_.at(operation.job);
  --job.running;
  job.waits_since_ns = 0;
  if (job.status == Status::ok) job.status = completion.status;
  if (operation.kind == Kind::load && completion.status == Status::checksum)
    if (DiskUnit* unit = units_.find(job.unit)) give_up(*unit);
  end_if_done(operation.job);
}

// The job at the head waits for room or for its key.
void DiskTier::settle_erased(const DiskEraser::Ended& ended) {
  counters_.failed_erasures += ended.status != Status::ok;
  Job* job = storing();
  if (job == nullptr) return;
  if (ended.status == Status::ok) {
    job->waits_since_ns = 0;
  } else if (job->status == Status::ok && job->next < job->pages.size() &&
             job->pages[job->next].key == ended.key) {
    job->status = ended.status;
  }
}

void DiskTier::settle_victim(const Operation& operation, Status status) {
  DiskUnit* unit = units_.find(operation.unit);
  const bool is_there = status != Status::ok && disk_.contains(operation.key);
  if (status == Status::ok) {
    ++counters_.evicted_pages;
    if (Job* job = storing()) job->waits_since_ns = 0;
  } else {
    ++counters_.failed_erasures;
    if (unit != nullptr && is_there) {
      units_.add_page(*unit, operation.key);
    } else {
      eraser_.add(operation.key);  // nobody knows
    }
  }
  if (unit == nullptr) return;
  --unit->erasing;
  if (unit->erased == Status::ok) unit->erased = status;
  end_victim(*unit);
}

void DiskTier::end_victim(DiskUnit& unit) {
  if (unit.erasing > 0 || (unit.erased == Status::ok && !unit.pages.empty())) return;
  counters_.evicted_units += unit.pages.empty();
  // Or the next victim would fail just so, and the one after it.
  if (unit.erased != Status::ok)
    if (Job* job = storing(); job != nullptr && job->status == Status::ok)
      job->status = unit.erased;
  units_.end_eviction(unit);
}

void DiskTier::end_if_done(std::uint64_t number) {
  const Job& job = jobs_.at(number);
  if (job.is_queued || job.running > 0) return;
  DiskUnit* unit = units_.find(job.unit);
  if (unit != nullptr) units_.unpin(*unit);
  if (job.kind == Kind::store && job.has_begun) end_store(job);
  begun_ -= job.has_begun;
  if (job.status == Status::ok) {
    const bool stores = job.kind == Kind::store;
    ++(stores ? counters_.stored_jobs : counters_.loaded_jobs);
    (stores ? counters_.stored_pages : counters_.loaded_pages) += job.pages.size();
    for (const TierPage& page : job.pages)
      (stores ? counters_.stored_bytes : counters_.loaded_bytes) += page_bytes(page.key.shape);
  } else if (job.status == Status::no_space) {
    ++counters_.no_space_jobs;
  } else if (job.status == Status::cancelled) {
    ++counters_.cancelled_jobs;
  } else {
    ++counters_.failed_jobs;
  }
  outcomes_.push_back({number, job.status});
  jobs_.erase(number);
}

// Its pages count from now on, or go.
void DiskTier::end_store(const Job& job) {
  std::erase(storing_, job.content);
  DiskUnit* unit = units_.find(job.unit);
  if (unit != nullptr) unit->store_job = 0;
  if (job.status == Status::ok) {
    for (const TierPage& page : job.pages) units_.add_page(*unit, page.key);
    return;
  }
  for (std::size_t i = 0; i < job.next; ++i) eraser_.add(job.pages[i].key);
  if (unit == nullptr) return;
  if (unit->pages.empty()) return units_.remove(*unit);
  EvictionFacts facts = unit->facts;
  facts.bytes -= job.added_bytes;
  units_.change(*unit, facts);
}

DiskTierUsage DiskTier::usage() const {
  DiskTierUsage usage;
  usage.capacity_bytes = disk_.capacity_bytes();
  usage.held_bytes = units_.held_bytes();
  usage.erasing_bytes = eraser_.bytes();
  usage.units = units_.size();
  usage.pages = units_.pages();
  usage.erasing_pages = eraser_.pages();
  usage.leaving_units = units_.leaving();
  return usage;
}

Nanos DiskTier::now() const {
  return std::chrono::nanoseconds(std::chrono::steady_clock::now() - start_).count();
}

}  // namespace modalkv
