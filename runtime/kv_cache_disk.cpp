// The disk behind the host's pools: what content leaves for, and comes back from when a prompt asks
// for it, also after a restart.
//
// A job reads or writes all pages of a segment where they lie on the host. It owns the blocks until
// its outcome, so nothing is used again, or moves, that the disk may still touch.
#include <algorithm>
#include <utility>

#include "runtime/kv_cache.hpp"

namespace modalkv {

PageKey KvCache::key_of(const BlockName& name, int layer, const PageShape& shape) {
  return {name.prefix, layer, static_cast<std::int32_t>(name.page), shape};
}

std::span<std::byte> KvCache::host_bytes(const Address& page) {
  return {host_of(page).memory + page.offset, static_cast<std::size_t>(page.bytes)};
}

// The blocks of a segment as the disk has them. Nothing: not all of them.
std::optional<std::vector<KvCache::StoredBlock>> KvCache::on_disk(const Prefix& prefix,
                                                                  const TokenLayout& layout) const {
  if (disk_ == nullptr) return {};
  const LayoutExtent from = layout.extent(prefix.begin), to = layout.extent(prefix.end);
  const Tokens page = config_.own_page_tokens, rows = to.own_tokens % page;
  std::vector<StoredBlock> blocks;
  for (Tokens index = from.own_tokens / page; index < to.own_tokens / page; ++index)
    blocks.push_back({.strand = Strand::own, .index = index});
  for (Tokens index = from.visual_blocks; index < to.visual_blocks; ++index)
    blocks.push_back({.strand = Strand::visual, .index = index});
  if (is_visual(prefix.token_class) && rows > 0)
    blocks.push_back({.strand = Strand::own, .index = to.own_tokens / page, .tail_rows = rows});
  for (StoredBlock& block : blocks) {
    block.name = block.tail_rows > 0 ? tail_name(prefix, block.index)
                                     : page_name(prefix, block.strand, block.index);
    const bool stays_high = block.tail_rows > 0 || layout.holds_high(block.strand, block.index);
    for (const LayerKind kind : kAllLayerKinds) {
      const auto has = [&](bool low) {
        std::vector<PageKey> keys;
        for (int layer = 0; layer < config_.layers; ++layer)
          if (blocks_.kind(layer) == kind)
            keys.push_back(key_of(block.name, layer, page_kind(block.strand, low).shape));
        return keys.empty() || disk_->contains(keys);
      };
      bool& low = block.low[static_cast<std::size_t>(kind)];
      low = !stays_high && may_be_low(block.strand, kind) && has(true);
      if (!low && !has(false)) return {};
    }
  }
  return blocks;
}

// A segment that comes to the host as soon as there is room for it. Nothing: it is not on disk, or
// there never will be.
std::optional<UnitId> KvCache::load_segment(const Running& sequence, const Prefix& prefix,
                                            std::optional<UnitId> before) {
  auto stored = on_disk(prefix, *sequence.layout);
  if (!stored) return {};
  CachedSegment segment{.prefix = prefix.id, .before = before};
  DiskJob job{.loads = true};
  for (const StoredBlock& from : *stored) {
    const bool is_tail = from.tail_rows > 0;
    const BlockId id = is_tail ? blocks_.add(Strand::own, from.tail_rows)
                               : make_block(sequence, from.strand, from.index);
    Block& block = blocks_[id];
    block.name = from.name;
    block.stays_high |= is_tail;
    block.awake_owners = 0;
    block.idle_since = clock_;
    for (const LayerKind kind : kAllLayerKinds)
      blocks_.begin(id, kind, PartState::loading, from.low[static_cast<std::size_t>(kind)]);
    job.blocks.push_back(id);
    if (is_tail) {
      segment.tail = id;
    } else {
      (from.strand == Strand::own ? segment.own : segment.visual).push_back(id);
    }
  }
  const UnitId unit = keep(std::move(segment), prefix);
  if (job.blocks.empty()) return unit;
  job.held = disk_->hold({prefix.id.words});
  begin_disk_job(std::move(job), unit);
  const Status status = start_load(disk_jobs_.back());
  if (status == Status::ok || status == Status::busy) return unit;
  const DiskJob failed = std::move(disk_jobs_.back());
  disk_jobs_.pop_back();
  end_disk_job(failed, status);
  return {};
}

// `busy`: not yet.
Status KvCache::start_load(DiskJob& job) {
  std::vector<TierPage> pages;
  std::vector<Address*> slots;
  bool room = true;
  job.bytes = 0;
  for (const BlockId id : job.blocks) {
    Block& block = blocks_[id];
    for (int layer = 0; layer < config_.layers; ++layer) {
      const Part& part = block.parts[static_cast<std::size_t>(blocks_.kind(layer))];
      const PageKind& kind = page_kind(block.strand, part.next_low);
      job.bytes += kind.bytes;
      const auto slot = room ? take_host(kind.bytes, layer, false) : std::nullopt;
      room = slot.has_value();
      if (!room) continue;
      slots.push_back(&block.pages[static_cast<std::size_t>(layer)].next);
      *slots.back() = *slot;
      pages.push_back({key_of(block.name, layer, kind.shape), host_bytes(*slot)});
    }
  }
  Status status = Status::busy;
  if (room) {
    const TierStarted started = disk_->load(pages);
    status = started.status == Status::rejected ? Status::cancelled : started.status;  // forgotten
    job.job = started.job;
  }
  if (status == Status::ok) {
    if (job.held) disk_->let_go(*std::exchange(job.held, {}));
    if (is_kept(job)) content_.reprice(job.unit, disk_reload_ns(job.bytes));
    return status;
  }
  for (Address* slot : slots) {
    pool_of(*slot).put_back(*slot);
    *slot = {};
  }
  return room ? status : make_host_room(job.bytes);
}

// Those that waited for room, in order.
void KvCache::start_loads() {
  for (auto job = disk_jobs_.begin(); job != disk_jobs_.end();) {
    const Status status = job->job != 0 ? Status::ok : start_load(*job);
    if (status == Status::busy) return;
    if (status == Status::ok) {
      ++job;
      continue;
    }
    const DiskJob failed = std::move(*job);
    job = disk_jobs_.erase(job);
    end_disk_job(failed, status);
  }
}

// Those of a prompt that are on disk, in order, as far as they come. They are pinned.
void KvCache::load_segments(const Running& sequence, Reusable& found) {
  while (found.units.size() < found.segments) {
    const auto before = found.units.empty() ? std::nullopt : std::optional(found.units.back());
    const auto unit = load_segment(sequence, sequence.prefixes[found.units.size()], before);
    if (!unit) return;
    content_.pin(*unit);
    found.units.push_back(*unit);
  }
}

// How a segment that is to leave does. To the disk only from the host, where all of it lies.
KvCache::Departure KvCache::depart(UnitId unit) {
  if (disk_ == nullptr) return Departure::at_once;
  std::vector<TierPage> pages;
  std::vector<PageKey> keys;
  DiskJob job;
  bool whole = true;
  content_[unit].for_each_block([&](BlockId id) {
    const Block& block = blocks_[id];
    job.blocks.push_back(id);
    for (int layer = 0; layer < config_.layers && whole; ++layer) {
      const Part& part = block.parts[static_cast<std::size_t>(blocks_.kind(layer))];
      whole = part.state == PartState::hosted && block.disk_jobs == 0;
      if (!whole) break;
      const Address& page = block.pages[static_cast<std::size_t>(layer)].now;
      keys.push_back(key_of(block.name, layer, page_kind(block.strand, part.low).shape));
      pages.push_back({keys.back(), host_bytes(page)});
      job.bytes += page.bytes;
    }
  });
  if (pages.empty() || !whole) {
    if (!whole) ++counters_.unstored_segments;
    return Departure::at_once;
  }
  if (disk_->contains(keys)) return Departure::at_once;
  const TierStarted started = disk_->store(pages, content_.facts(unit));
  if (started.status == Status::busy) return Departure::not_now;
  if (started.status != Status::ok) {
    ++counters_.unstored_segments;
    return Departure::at_once;
  }
  job.job = started.job;
  begin_disk_job(std::move(job), unit);
  return Departure::when_stored;
}

void KvCache::begin_disk_job(DiskJob job, UnitId unit) {
  job.unit = unit;
  for (const BlockId id : job.blocks) {
    ++blocks_[id].disk_jobs;
    ++blocks_[id].owners;
  }
  if (!job.loads) storing_bytes_ += job.bytes;
  disk_jobs_.push_back(std::move(job));
}

bool KvCache::end_disk_jobs(Nanos timeout_ns) {
  if (disk_ == nullptr || (disk_jobs_.empty() && disk_->settled())) return false;
  const auto outcome = disk_->next(timeout_ns);
  if (!outcome) return false;
  const auto found = std::find_if(disk_jobs_.begin(), disk_jobs_.end(),
                                  [&](const DiskJob& job) { return job.job == outcome->job; });
  if (found == disk_jobs_.end()) return true;
  const DiskJob job = std::move(*found);
  disk_jobs_.erase(found);
  end_disk_job(job, outcome->status);
  return true;
}

void KvCache::end_disk_job(const DiskJob& job, Status status) {
  const bool well = status == Status::ok;
  for (const BlockId id : job.blocks) --blocks_[id].disk_jobs;
  if (job.held) disk_->let_go(*job.held);
  const bool is_kept = this->is_kept(job);
  if (job.loads) {
    ++(well ? counters_.loaded_segments : counters_.unloaded_segments);
    for (const BlockId id : job.blocks)
      for (const LayerKind kind : kAllLayerKinds) {
        given_up_.clear();
        blocks_.end(id, kind, well, given_up_);
        give_back(given_up_);
      }
    if (!well && is_kept) drop_content(job.unit);
    if (!well)
      for (const BlockId id : job.blocks) lose(id, 0, status);
  } else {
    ++(well ? counters_.stored_segments : counters_.unstored_segments);
    storing_bytes_ -= job.bytes;
    if (is_kept && content_.is_pinned(job.unit)) {
      content_.stay(job.unit);
      if (well) content_.reprice(job.unit, disk_reload_ns(job.bytes));
    } else if (is_kept) {
      ++counters_.evicted_segments;
      drop_content(job.unit);
    }
  }
  for (const BlockId id : job.blocks) let_go(id);
}

// Not where it has been forgotten meanwhile.
bool KvCache::is_kept(const DiskJob& job) const {
  return blocks_.find(job.blocks.front())->unit == job.unit;
}

// About: of a solid-state disk.
Nanos KvCache::disk_reload_ns(Bytes bytes) {
  return 100 * kMicrosecond + bytes / 2;
}

// Whether pages of a sequence are still on their way from the disk.
bool KvCache::is_loading(SequenceId id) const {
  bool loading = false;
  if (std::any_of(disk_jobs_.begin(), disk_jobs_.end(),
                  [](const DiskJob& job) { return job.loads; }))
    for_each_block(*find(id), [&](BlockId block) {
      for (const Part& part : blocks_.find(block)->parts)
        loading |= part.state == PartState::loading;
    });
  return loading;
}

// The next outcome on the device or the disk, within about `timeout_ns`.
bool KvCache::await(Nanos timeout_ns) {
  if (disk_jobs_.empty() || !ledger_.idle()) {
    const Nanos until_ns = device_.now() + timeout_ns;
    Nanos left_ns = timeout_ns;
    do {
      // Two that can end: each is asked in turn.
      const Nanos slice_ns = disk_jobs_.empty() ? left_ns : std::min(left_ns, 100 * kMicrosecond);
      if (const auto completion = ledger_.next(slice_ns)) {
        collect(*completion);
        return true;
      }
      if (end_disk_jobs(0)) return true;
      left_ns = until_ns - device_.now();
    } while (left_ns > 0 && !ledger_.idle());
    return false;
  }
  return end_disk_jobs(timeout_ns);
}

}  // namespace modalkv
