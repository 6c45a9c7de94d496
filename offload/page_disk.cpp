#include "offload/page_disk.hpp"

#include <fmt/core.h>

#include <algorithm>
#include <limits>

#include "offload/page_seal.hpp"

namespace modalkv {
namespace {

constexpr Nanos kNever = std::numeric_limits<Nanos>::max();
constexpr Nanos kMinWait = 20 * kMicrosecond;

const PageDiskConfig& checked(const PageDiskConfig& config) {
  if (config.max_page_bytes <= 0 || config.max_operations == 0 || config.max_transfers == 0 ||
      config.timeout_ns <= 0)
    throw Error(config.directory + ": pages, operations and timeouts of a disk are positive");
  if (config.capacity_bytes < config.max_page_bytes + kPageSealBytes + kBlockBytes)
    throw Error(fmt::format("{}: capacity of {} bytes, expected room for a page of {} at least",
                            config.directory, config.capacity_bytes, config.max_page_bytes));
  return config;
}

Bytes whole_blocks(Bytes bytes) {
  return bytes / kBlockBytes * kBlockBytes;
}

}  // namespace

PageDisk::PageDisk(const PageDiskConfig& config)
    : PageDisk(checked(config),
               open_disk_files(config.directory, whole_blocks(config.capacity_bytes),
                               config.max_transfers, config.backend)) {}

PageDisk::PageDisk(const PageDiskConfig& config, DiskFiles files)
    : name_(checked(config).directory),
      capacity_bytes_(whole_blocks(config.capacity_bytes)),
      max_page_bytes_(config.max_page_bytes),
      max_pages_(config.max_pages),
      timeout_ns_(config.timeout_ns),
      files_(std::move(files)),
      log_(*files_.index, config.owner, name_ + "/index", config.min_compact_bytes),
      extents_(capacity_bytes_),
      operations_(config.max_operations),
      earliest_deadline_ns_(kNever),
      decided_(config.max_operations),
      worker_(std::move(files_.pages.file), log_, config.max_operations,
              round_up(max_page_bytes_ + kPageSealBytes, kBlockBytes)) {
  for (std::size_t i = operations_.size(); i > 0; --i) unused_.push_back(i - 1);
  recover();
}

// The newest first: what lies over a newer page is not there any more.
void PageDisk::recover() {
  const RecoveredIndex found = log_.take_recovered();
  next_generation_ = found.next_generation;
  counters_.lost_index_bytes = found.lost_bytes;
  index_.reserve(max_pages_);  // or it would grow at once and long, on the engine's thread
  std::vector<IndexRecord> given_up;
  for (auto page = found.pages.rbegin(); page != found.pages.rend(); ++page) {
    const Extent& extent = page->extent;
    const bool fits = page_bytes(page->key.shape) <= max_page_bytes_ &&
                      extent.bytes == stored_bytes(page->key.shape) && extent.offset >= 0 &&
                      extent.offset % kBlockBytes == 0 &&
                      extent.offset <= capacity_bytes_ - extent.bytes &&
                      index_.size() < max_pages_ && extents_.claim(extent);
    if (fits) {
      index_.emplace(page->key, Entry{*page, State::present, 0});
    } else {
      given_up.push_back({IndexRecord::Kind::erase, *page});
    }
  }
  present_ = counters_.recovered = index_.size();
  counters_.misplaced = given_up.size();
  if (!given_up.empty())
    if (const Status status = log_.append(given_up); status != Status::ok)
      throw Error(name_ + "/index: cannot be written: " + std::string(modalkv::name(status)));
}

Submitted PageDisk::refuse(Status status) {
  counters_.busy += status == Status::busy;
  counters_.no_space += status == Status::no_space;
  return {status, {}};
}

Submitted PageDisk::store(const PageKey& key, std::span<const std::byte> page) {
  const auto bytes = static_cast<Bytes>(page.size());
  if (!is_key(key) || bytes != page_bytes(key.shape) || bytes > max_page_bytes_)
    return refuse(Status::rejected);
  if (const auto found = index_.find(key); found != index_.end())
    return refuse(found->second.state == State::present ? Status::rejected : Status::busy);
  if (unused_.empty()) return refuse(Status::busy);
  if (index_.size() >= max_pages_) return refuse(Status::no_space);
  const auto extent = extents_.allocate(stored_bytes(key.shape));
  if (!extent) return refuse(Status::no_space);
  const StoredPage stored{key, next_generation_++, *extent};
  index_.emplace(key, Entry{stored, State::storing, 0});
  return start({DiskJob::Kind::store, stored, page.data(), nullptr});
}

Submitted PageDisk::load(const PageKey& key, std::span<std::byte> into) {
  const auto found = index_.find(key);
  if (found == index_.end() || found->second.state != State::present ||
      static_cast<Bytes>(into.size()) != page_bytes(key.shape))
    return refuse(Status::rejected);
  if (unused_.empty()) return refuse(Status::busy);
  ++found->second.readers;
  return start({DiskJob::Kind::load, found->second.page, nullptr, into.data()});
}

Submitted PageDisk::erase(const PageKey& key) {
  const auto found = index_.find(key);
  if (found == index_.end()) return refuse(Status::rejected);
  if (found->second.state != State::present || unused_.empty()) return refuse(Status::busy);
  set_state(found->second, State::erasing);
  return start({DiskJob::Kind::erase, found->second.page, nullptr, nullptr});
}

bool PageDisk::contains(const PageKey& key) const {
  const auto found = index_.find(key);
  return found != index_.end() && found->second.state == State::present;
}

std::vector<PageKey> PageDisk::keys() const {
  std::vector<const StoredPage*> pages;
  pages.reserve(present_);
  for (const auto& [key, entry] : index_)
    if (entry.state == State::present) pages.push_back(&entry.page);
  std::sort(pages.begin(), pages.end(),
            [](const StoredPage* a, const StoredPage* b) { return a->generation < b->generation; });
  std::vector<PageKey> all;
  all.reserve(pages.size());
  for (const StoredPage* page : pages) all.push_back(page->key);
  return all;
}

void PageDisk::set_state(Entry& entry, State state) {
  present_ += state == State::present;
  present_ -= entry.state == State::present;
  entry.state = state;
}

Submitted PageDisk::start(const DiskJob& job) {
  const std::size_t number = unused_.back();
  start_job(number, job, false);
  ++unreported_;
  return {Status::ok, operations_[number].ticket};
}

// Takes the last unused operation.
void PageDisk::start_job(std::size_t number, const DiskJob& job, bool reported) {
  unused_.pop_back();
  const Nanos deadline_ns = now() + timeout_ns_;
  if (!reported) earliest_deadline_ns_ = std::min(earliest_deadline_ns_, deadline_ns);
  operations_[number] = {
      {next_sequence_++ * operations_.size() + number}, job, deadline_ns, true, reported};
  worker_.submit(number, job);
}

void PageDisk::cancel(Ticket ticket) {
  Operation& operation = operations_[ticket.id % operations_.size()];
  if (operation.ticket == ticket && operation.running && !operation.reported &&
      worker_.abandon(ticket.id % operations_.size()))
    decided_.push_back(report(operation, Status::cancelled));
}

std::optional<Completion> PageDisk::next_completion(Nanos timeout_ns) {
  const Nanos until_ns = now() + std::clamp(timeout_ns, Nanos{0}, kMaxWaitNanos);
  for (;;) {
    if (!decided_.empty()) {
      const Completion completion = decided_.front();
      decided_.pop_front();
      return completion;
    }
    while (const auto ended = worker_.next_ended(0))
      if (const auto completion = settle(*ended)) return completion;
    expire();
    if (!decided_.empty()) continue;
    const Nanos now_ns = now();
    if (unreported_ == 0 || now_ns >= until_ns) return std::nullopt;
    const Nanos wait_ns = std::min(until_ns, earliest_deadline_ns_) - now_ns;
    if (const auto ended = worker_.next_ended(std::max(wait_ns, kMinWait)))
      if (const auto completion = settle(*ended)) return completion;
  }
}

void PageDisk::expire() {
  const Nanos now_ns = now();
  if (now_ns < earliest_deadline_ns_) return;
  earliest_deadline_ns_ = kNever;
  for (std::size_t i = 0; i < operations_.size(); ++i) {
    Operation& operation = operations_[i];
    if (!operation.running || operation.reported) continue;
    if (operation.deadline_ns <= now_ns && worker_.abandon(i)) {
      decided_.push_back(report(operation, Status::timeout));
    } else {
      earliest_deadline_ns_ = std::min(earliest_deadline_ns_, operation.deadline_ns);
    }
  }
}

Completion PageDisk::report(Operation& operation, Status status) {
  operation.reported = true;
  --unreported_;
  count(operation.job, status);
  return {operation.ticket, status, now()};
}

// What an operation that has really ended leaves; its completion, unless it had one before.
std::optional<Completion> PageDisk::settle(const EndedJob& ended) {
  Operation& operation = operations_[ended.job];
  std::optional<Completion> completion;
  if (!operation.reported) completion = report(operation, ended.status);
  operation.running = false;
  unused_.push_back(ended.job);
  const auto at = index_.find(operation.job.page.key);
  const bool ok = ended.status == Status::ok;
  switch (operation.job.kind) {
    case DiskJob::Kind::store:
      set_state(at->second, ok ? State::present : State::erased);
      break;
    case DiskJob::Kind::erase:
      set_state(at->second, ok ? State::erased : State::present);
      break;
    case DiskJob::Kind::load:
      settle_load(at, ended.status);
      break;
  }
  forget(at);
  return completion;
}

void PageDisk::settle_load(Index::iterator at, Status status) {
  Entry& entry = at->second;
  --entry.readers;
  if (status != Status::checksum || entry.state != State::present) return;
  ++counters_.dropped;
  set_state(entry, State::erasing);
  start_job(unused_.back(), {DiskJob::Kind::erase, entry.page, nullptr, nullptr}, true);
}

// Once nobody reads what the index, on disk as here, no longer names.
void PageDisk::forget(Index::iterator at) {
  if (at->second.state != State::erased || at->second.readers > 0) return;
  extents_.free(at->second.page.extent);
  index_.erase(at);
}

void PageDisk::count(const DiskJob& job, Status status) {
  const Bytes bytes = page_bytes(job.page.key.shape);
  switch (status) {
    case Status::ok:
      break;
    case Status::checksum:
      ++counters_.checksum;
      return;
    case Status::timeout:
      ++counters_.timeouts;
      return;
    case Status::cancelled:
      ++counters_.cancelled;
      return;
    case Status::no_space:
      ++counters_.no_space;
      return;
    default:
      ++counters_.io_errors;
      return;
  }
  switch (job.kind) {
    case DiskJob::Kind::store:
      ++counters_.stored;
      counters_.stored_bytes += bytes;
      break;
    case DiskJob::Kind::load:
      ++counters_.loaded;
      counters_.loaded_bytes += bytes;
      break;
    case DiskJob::Kind::erase:
      ++counters_.erased;
      break;
  }
}

PageDiskCounters PageDisk::counters() const {
  PageDiskCounters counters = counters_;
  counters.index = worker_.log_counters();
  for (const Operation& operation : operations_)
    counters.stuck += operation.running && operation.reported;
  return counters;
}

std::string PageDisk::description() const {
  std::string text =
      fmt::format("{}: {} pages, {:.2f} of {:.2f} GiB free, {}", name_, present_,
                  static_cast<double>(free_bytes()) / kGiB,
                  static_cast<double>(capacity_bytes_) / kGiB, files_.pages.description);
  if (counters_.lost_index_bytes > 0)
    text += fmt::format("; {} bytes of the index were torn or damaged", counters_.lost_index_bytes);
  if (counters_.misplaced > 0)
    text += fmt::format("; {} pages were out of place and given up", counters_.misplaced);
  return text;
}

Nanos PageDisk::now() const {
  return std::chrono::nanoseconds(std::chrono::steady_clock::now() - start_).count();
}

}  // namespace modalkv
