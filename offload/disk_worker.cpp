#include "offload/disk_worker.hpp"

#include <algorithm>
#include <cstring>

#include "offload/page_seal.hpp"

namespace modalkv {
namespace {

constexpr Nanos kIdle = kSecond;  // between looks at nothing
constexpr Nanos kMaxWait = 3600 * kSecond;

}  // namespace

DiskWorker::DiskWorker(std::unique_ptr<BlockFile> file, IndexLog& log, std::size_t max_jobs,
                       Bytes max_stored_bytes)
    : file_(std::move(file)),
      log_(log),
      held_(max_jobs),
      loads_(max_jobs),
      stores_(max_jobs),
      commits_(max_jobs),
      ended_(max_jobs),
      log_counters_(log.counters()) {
  for (std::size_t i = 0; i < file_->max_in_flight(); ++i) {
    void* memory = std::aligned_alloc(kBlockBytes, static_cast<std::size_t>(max_stored_bytes));
    if (memory == nullptr) throw Error("no memory for the buffers of the disk");
    buffers_.emplace_back(static_cast<std::byte*>(memory), &std::free);
    unused_.push_back(i);
  }
  transfers_ = std::jthread([this](std::stop_token stop) { run_transfers(stop); });
  committer_ = std::jthread([this](std::stop_token stop) { run_commits(stop); });
}

DiskWorker::~DiskWorker() {
  transfers_.request_stop();
  committer_.request_stop();
  file_->wake();
}

void DiskWorker::submit(std::size_t number, const DiskJob& job) {
  {
    const std::lock_guard lock(mutex_);
    held_[number] = {job, 0, true, false, false};
    switch (job.kind) {
      case DiskJob::Kind::load:
        loads_.push_back(number);
        break;
      case DiskJob::Kind::store:
        stores_.push_back(number);
        break;
      case DiskJob::Kind::erase:
        commits_.push_back(number);
        break;
    }
  }
  if (job.kind == DiskJob::Kind::erase) {
    commits_changed_.notify_one();
  } else {
    file_->wake();
  }
}

bool DiskWorker::abandon(std::size_t number) {
  const std::lock_guard lock(mutex_);
  Held& held = held_[number];
  if (!held.running || held.copying) return false;
  held.abandoned = true;
  return true;
}

std::optional<EndedJob> DiskWorker::next_ended(Nanos timeout_ns) {
  std::unique_lock lock(mutex_);
  if (ended_.empty() && timeout_ns > 0)
    ended_changed_.wait_for(lock, std::chrono::nanoseconds(std::min(timeout_ns, kMaxWait)),
                            [&] { return !ended_.empty(); });
  if (ended_.empty()) return std::nullopt;
  const EndedJob ended = ended_.front();
  ended_.pop_front();
  return ended;
}

IndexLogCounters DiskWorker::log_counters() const {
  const std::lock_guard lock(mutex_);
  return log_counters_;
}

void DiskWorker::run_transfers(std::stop_token stop) {
  while (!stop.stop_requested()) {
    while (const auto number = take()) begin(*number);
    if (const auto completion = file_->next_completion(kIdle)) finish(*completion);
  }
}

// A job that waits, while there is a buffer for it.
std::optional<std::size_t> DiskWorker::take() {
  const std::lock_guard lock(mutex_);
  for (Ring<std::size_t>* waiting : {&loads_, &stores_}) {
    while (!waiting->empty()) {
      const std::size_t number = waiting->front();
      const bool abandoned = held_[number].abandoned;
      if (!abandoned && unused_.empty()) break;
      waiting->pop_front();
      if (!abandoned) return number;
      end_locked(number, Status::cancelled);
    }
  }
  return std::nullopt;
}

void DiskWorker::begin(std::size_t number) {
  Held& held = held_[number];
  held.buffer = unused_.back();
  unused_.pop_back();
  const bool stores = held.job.kind == DiskJob::Kind::store;
  const std::span<std::byte> bytes = stored(number);
  Status status = Status::ok;
  if (stores) {
    if (begin_copy(number)) {
      std::memcpy(bytes.data(), held.job.from,
                  static_cast<std::size_t>(page_bytes(held.job.page.key.shape)));
      end_copy(number);
      status = seal_page(held.job.page.key, held.job.page.generation, bytes);
    } else {
      status = Status::cancelled;
    }
  }
  if (status == Status::ok)
    status = file_->submit({stores ? BlockTransfer::Kind::write : BlockTransfer::Kind::read, number,
                            held.job.page.extent.offset, held.job.page.extent.bytes, bytes.data()});
  if (status == Status::ok) return;
  unused_.push_back(held.buffer);
  end(number, status);
}

void DiskWorker::finish(const BlockCompletion& completion) {
  const std::size_t number = completion.tag;
  const DiskJob& job = held_[number].job;
  Status status = completion.status;
  if (status == Status::ok && completion.bytes != job.page.extent.bytes) status = Status::io_error;
  const bool stores = job.kind == DiskJob::Kind::store;
  if (!stores && status == Status::ok) status = deliver(number);
  unused_.push_back(held_[number].buffer);
  if (!stores || status != Status::ok) return end(number, status);
  {
    const std::lock_guard lock(mutex_);
    commits_.push_back(number);
  }
  commits_changed_.notify_one();
}

// What is verified is what is copied: nobody else writes to the buffer any more.
Status DiskWorker::deliver(std::size_t number) {
  const DiskJob& job = held_[number].job;
  const std::span<const std::byte> bytes = stored(number);
  if (const Status status = verify_sealed(job.page.key, job.page.generation, bytes);
      status != Status::ok)
    return status;
  if (!begin_copy(number)) return Status::cancelled;
  std::memcpy(job.to, bytes.data(), static_cast<std::size_t>(page_bytes(job.page.key.shape)));
  end_copy(number);
  return Status::ok;
}

bool DiskWorker::begin_copy(std::size_t number) {
  const std::lock_guard lock(mutex_);
  held_[number].copying = !held_[number].abandoned;
  return held_[number].copying;
}

void DiskWorker::end_copy(std::size_t number) {
  const std::lock_guard lock(mutex_);
  held_[number].copying = false;
}

void DiskWorker::end(std::size_t number, Status status) {
  const std::lock_guard lock(mutex_);
  end_locked(number, status);
}

void DiskWorker::end_locked(std::size_t number, Status status) {
  held_[number].running = false;
  ended_.push_back({number, status});
  ended_changed_.notify_one();
}

void DiskWorker::run_commits(std::stop_token stop) {
  std::vector<EndedJob> batch;
  std::unique_lock lock(mutex_);
  while (commits_changed_.wait(lock, stop, [&] { return !commits_.empty(); }) &&
         !stop.stop_requested()) {
    for (batch.clear(); !commits_.empty(); commits_.pop_front()) {
      const bool abandoned = held_[commits_.front()].abandoned;
      batch.push_back({commits_.front(), abandoned ? Status::cancelled : Status::ok});
    }
    lock.unlock();
    commit(batch);
    lock.lock();
    log_counters_ = log_.counters();
    for (const EndedJob& ended : batch) end_locked(ended.job, ended.status);
  }
}

void DiskWorker::commit(std::vector<EndedJob>& batch) {
  const auto kind = [&](const EndedJob& ended) { return held_[ended.job].job.kind; };
  const auto fail_all = [&](Status status, bool stores_only) {
    for (EndedJob& ended : batch)
      if (ended.status == Status::ok && (!stores_only || kind(ended) == DiskJob::Kind::store))
        ended.status = status;
  };
  const bool any_store = std::any_of(batch.begin(), batch.end(), [&](const EndedJob& ended) {
    return ended.status == Status::ok && kind(ended) == DiskJob::Kind::store;
  });
  if (any_store)
    if (const Status status = file_->sync(); status != Status::ok) fail_all(status, true);
  std::vector<IndexRecord> records;
  for (const EndedJob& ended : batch)
    if (ended.status == Status::ok)
      records.push_back({kind(ended) == DiskJob::Kind::store ? IndexRecord::Kind::store
                                                             : IndexRecord::Kind::erase,
                         held_[ended.job].job.page});
  if (records.empty()) return;
  if (const Status status = log_.append(records); status != Status::ok) fail_all(status, false);
}

std::span<std::byte> DiskWorker::stored(std::size_t number) {
  return {buffers_[held_[number].buffer].get(),
          static_cast<std::size_t>(held_[number].job.page.extent.bytes)};
}

}  // namespace modalkv
