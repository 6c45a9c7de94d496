#include "offload/index_log.hpp"

#include <algorithm>
#include <array>
#include <optional>
#include <unordered_map>

#include "kernels/checksum.hpp"
#include "offload/little_endian.hpp"

namespace modalkv {
namespace {

using RecordBytes = std::span<std::byte, kIndexRecordBytes>;
using ConstRecordBytes = std::span<const std::byte, kIndexRecordBytes>;

// header  | magic 8 | version 4 | zeros 4 | owner 32 | next generation 8 | zeros | checksum 8 |
// record  | chain 8 | kind 4 | attempt 4 | generation 8 | offset 8 | bytes 8 | key 64 | zeros |
// checksum 8 |
constexpr std::uint64_t kMagic = 0x67617076616d6f6d;  // "momavpag"
constexpr std::uint32_t kVersion = 1;
constexpr std::size_t kHeaderVersion = 8, kHeaderOwner = 16, kHeaderGeneration = 48;
constexpr std::size_t kChain = 0, kKind = 8, kAttempt = 12, kGeneration = 16, kOffset = 24,
                      kBytes = 32, kKey = 40;
constexpr std::size_t kChecksum = 120;

void seal(RecordBytes record) {
  put(record, kChecksum, checksum(record.first(kChecksum)));
}

bool is_sealed(ConstRecordBytes record) {
  return get<std::uint64_t>(record, kChecksum) == checksum(record.first(kChecksum));
}

void write_header(const ContentId& owner, std::uint64_t next_generation, RecordBytes to) {
  std::fill(to.begin(), to.end(), std::byte{0});
  put(to, 0, kMagic);
  put(to, kHeaderVersion, kVersion);
  put(to, kHeaderOwner, owner.words);
  put(to, kHeaderGeneration, next_generation);
  seal(to);
}

std::uint64_t write_record(const IndexRecord& record, std::uint64_t chain, std::uint32_t attempt,
                           RecordBytes to) {
  std::fill(to.begin(), to.end(), std::byte{0});
  put(to, kChain, chain);
  put(to, kKind, static_cast<std::uint32_t>(record.kind));
  put(to, kAttempt, attempt);
  put(to, kGeneration, record.page.generation);
  put(to, kOffset, record.page.extent.offset);
  put(to, kBytes, record.page.extent.bytes);
  write_key(record.page.key, to.subspan<kKey, kPageKeyBytes>());
  seal(to);
  return get<std::uint64_t>(to, kChecksum);
}

std::optional<IndexRecord> read_record(ConstRecordBytes from, std::uint64_t chain) {
  if (!is_sealed(from) || get<std::uint64_t>(from, kChain) != chain) return std::nullopt;
  const auto kind = get<std::uint32_t>(from, kKind);
  const auto key = read_key(from.subspan<kKey, kPageKeyBytes>());
  if (!key || (kind != 1 && kind != 2)) return std::nullopt;
  return IndexRecord{static_cast<IndexRecord::Kind>(kind),
                     {*key,
                      get<std::uint64_t>(from, kGeneration),
                      {get<Bytes>(from, kOffset), get<Bytes>(from, kBytes)}}};
}

// A header that is damaged is no error, one that is whole and not ours is.
bool has_header(std::span<const std::byte> log, const ContentId& owner, const std::string& name) {
  if (log.empty()) return false;
  const std::size_t magic_bytes = std::min(log.size(), sizeof(kMagic));
  if (std::memcmp(log.data(), &kMagic, magic_bytes) != 0)
    throw Error(name + ": not an index of pages; name another directory or remove the file");
  if (log.size() < kIndexRecordBytes || !is_sealed(log.first<kIndexRecordBytes>())) return false;
  if (const auto version = get<std::uint32_t>(log, kHeaderVersion); version != kVersion)
    throw Error(name + ": version " + std::to_string(version) + ", expected " +
                std::to_string(kVersion) + "; remove the directory's files to begin anew");
  if (get<std::array<std::uint64_t, 4>>(log, kHeaderOwner) != owner.words)
    throw Error(name + ": pages of another owner (model, rank); name another directory");
  return true;
}

class Replay {
 public:
  void apply(const IndexRecord& record) {
    const StoredPage& page = record.page;
    next_generation_ = std::max(next_generation_, page.generation + 1);
    if (record.kind == IndexRecord::Kind::store) {
      pages_.insert_or_assign(page.key, page);
    } else if (const auto found = pages_.find(page.key);
               found != pages_.end() && found->second.generation == page.generation) {
      pages_.erase(found);
    }
  }
  void at_least(std::uint64_t generation) {
    next_generation_ = std::max(next_generation_, generation);
  }

  void move_to(RecoveredIndex& index) const {
    index.next_generation = next_generation_;
    for (const auto& [key, page] : pages_) index.pages.push_back(page);
    std::sort(index.pages.begin(), index.pages.end(),
              [](const StoredPage& a, const StoredPage& b) { return a.generation < b.generation; });
  }

 private:
  std::unordered_map<PageKey, StoredPage, PageKeyHash> pages_;
  std::uint64_t next_generation_ = 1;
};

}  // namespace

RecoveredIndex parse_index(std::span<const std::byte> log, const ContentId& owner,
                           const std::string& name) {
  RecoveredIndex index;
  Replay replay;
  if (has_header(log, owner, name)) {
    replay.at_least(get<std::uint64_t>(log, kHeaderGeneration));
    index.chain = get<std::uint64_t>(log, kChecksum);
    auto at = static_cast<std::size_t>(kIndexRecordBytes);
    for (; log.size() - at >= kIndexRecordBytes; at += kIndexRecordBytes) {
      const auto bytes = log.subspan(at).first<kIndexRecordBytes>();
      const auto record = read_record(bytes, index.chain);
      if (!record) break;
      replay.apply(*record);
      index.chain = get<std::uint64_t>(bytes, kChecksum);
    }
    index.read_bytes = static_cast<Bytes>(at);
  }
  index.lost_bytes = static_cast<Bytes>(log.size()) - index.read_bytes;
  replay.move_to(index);
  return index;
}

std::vector<std::byte> write_index(const ContentId& owner, std::span<const StoredPage> pages,
                                   std::uint64_t next_generation) {
  std::vector<std::byte> log((1 + pages.size()) * kIndexRecordBytes);
  const auto record_at = [&](std::size_t i) {
    return std::span(log).subspan(i * kIndexRecordBytes).first<kIndexRecordBytes>();
  };
  write_header(owner, next_generation, record_at(0));
  auto chain = get<std::uint64_t>(record_at(0), kChecksum);
  for (std::size_t i = 0; i < pages.size(); ++i)
    chain = write_record({IndexRecord::Kind::store, pages[i]}, chain, 0, record_at(i + 1));
  return log;
}

IndexLog::IndexLog(LogFile& file, const ContentId& owner, const std::string& name,
                   Bytes min_compact_bytes)
    : file_(file), owner_(owner), name_(name), min_compact_bytes_(min_compact_bytes) {
  recovered_ = parse_index(file_.read(), owner_, name_);
  bytes_ = recovered_.read_bytes;
  chain_ = recovered_.chain;
  const auto needed = static_cast<Bytes>(1 + recovered_.pages.size()) * kIndexRecordBytes;
  compact_at_ = std::max(min_compact_bytes_, 2 * needed);
  if (bytes_ > 0 && recovered_.lost_bytes == 0 && !is_long()) return;
  const auto log = write_index(owner_, recovered_.pages, recovered_.next_generation);
  if (const Status status = replace(log, recovered_.pages.size()); status != Status::ok)
    throw Error(name_ + ": cannot be written: " + std::string(modalkv::name(status)));
}

Status IndexLog::append(std::span<const IndexRecord> records) {
  if (counters_.failed) return Status::io_error;
  batch_.resize(records.size() * kIndexRecordBytes);
  std::uint64_t chain = chain_;
  ++attempt_;  // or a batch that is tried again could continue in what was left of the first try
  for (std::size_t i = 0; i < records.size(); ++i)
    chain =
        write_record(records[i], chain, attempt_,
                     std::span(batch_).subspan(i * kIndexRecordBytes).first<kIndexRecordBytes>());
  // Where this fails the next batch overwrites it, and the chain tells what is left of it.
  if (const Status status = file_.write(bytes_, batch_); status != Status::ok) return status;
  if (file_.sync() != Status::ok) {
    counters_.failed = true;  // what the page cache holds and what the disk holds may differ now
    return Status::io_error;
  }
  bytes_ += static_cast<Bytes>(batch_.size());
  chain_ = chain;
  if (is_long()) compact();
  return Status::ok;
}

void IndexLog::compact() {
  Status status = Status::checksum;
  try {
    const RecoveredIndex index = parse_index(file_.read(), owner_, name_);
    // A log that cannot be read back as it was written is not replaced by what is left of it.
    if (index.read_bytes == bytes_ && index.chain == chain_)
      status = replace(write_index(owner_, index.pages, index.next_generation), index.pages.size());
  } catch (const Error&) {
    status = Status::io_error;
  }
  ++(status == Status::ok ? counters_.compactions : counters_.failed_compactions);
  if (status != Status::ok) compact_at_ = 2 * bytes_;
}

Status IndexLog::replace(std::span<const std::byte> log, std::size_t pages) {
  const Status status = file_.replace(log);
  counters_.failed = file_.lost();
  if (status != Status::ok) return status;
  bytes_ = static_cast<Bytes>(log.size());
  chain_ = get<std::uint64_t>(log.last(kIndexRecordBytes), kChecksum);
  compact_at_ = std::max(min_compact_bytes_, 2 * static_cast<Bytes>(1 + pages) * kIndexRecordBytes);
  return Status::ok;
}

}  // namespace modalkv
