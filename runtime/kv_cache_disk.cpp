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
std::optional<KvCache::StoredSegment> KvCache::on_disk(const Prefix& prefix,
                                                       const TokenLayout& layout) const {
  if (disk_ == nullptr) return {};
  const LayoutExtent from = layout.extent(prefix.begin), to = layout.extent(prefix.end);
  const Tokens page = config_.own_page_tokens, rows = to.own_tokens % page;
  StoredSegment stored;
  // One by one: a segment that is not there may be as long as it likes.
  const auto add = [&](Strand strand, Tokens index) {
    stored.push_back({strand, index, 0, page_name(prefix, strand, index)});
    return find_on_disk(stored.back(), layout.holds_high(strand, index));
  };
  for (Tokens index = from.own_tokens / page; index < to.own_tokens / page; ++index)
    if (!add(Strand::own, index)) return {};
  for (Tokens index = from.visual_blocks; index < to.visual_blocks; ++index)
    if (!add(Strand::visual, index)) return {};
  if (!is_visual(prefix.token_class) || rows == 0) return stored;
  const Tokens last = to.own_tokens / page;
  stored.push_back({Strand::own, last, rows, tail_name(prefix, last)});
  if (!find_on_disk(stored.back(), true)) return {};
  return stored;
}

// In which precision; false: not at all.
bool KvCache::find_on_disk(StoredBlock& block, bool stays_high) const {
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
    if (!low && !has(false)) return false;
  }
  return true;
}

// A segment that comes to the host as soon as there is room for it. Nothing: there never will be.
std::optional<UnitId> KvCache::load_segment(const Running& sequence, const Prefix& prefix,
                                            std::optional<UnitId> before,
                                            const StoredSegment& stored,
                                            std::optional<UnitId> held) {
  CachedSegment segment{.prefix = prefix.id, .before = before};
  WaitingLoad load{.job = {.loads = true}, .held = held};
  for (const StoredBlock& from : stored) {
    const bool is_tail = from.tail_rows > 0;
    const BlockId id = is_tail ? blocks_.add(Strand::own, from.tail_rows)
                               : make_block(sequence, from.strand, from.index);
    Block& block = blocks_[id];
    block.name = from.name;
    block.stays_high |= is_tail;
    block.is_tail = is_tail;
    block.awake_owners = 0;
    block.idle_since = clock_;
    for (const LayerKind kind : kAllLayerKinds) {
      const bool low = from.low[static_cast<std::size_t>(kind)];
      load.job.bytes += blocks_.layers_of(kind) * page_kind(from.strand, low).bytes;
      blocks_.begin(id, kind, PartState::loading, low);
    }
    load.job.blocks.push_back(id);
    if (is_tail) {
      segment.tail = id;
    } else {
      (from.strand == Strand::own ? segment.own : segment.visual).push_back(id);
    }
  }
  const UnitId unit = keep(std::move(segment), prefix);
  if (load.job.blocks.empty()) return unit;
  load.job.unit = unit;
  own_blocks(load.job);
  loads_.push_back(std::move(load));
  if (loads_.size() == 1) start_loads();
  return content_.contains(unit) ? std::optional(unit) : std::nullopt;
}

// `busy`: not yet.
Status KvCache::start_load(WaitingLoad& load) {
  const DiskJob& job = load.job;
  const auto layers = static_cast<std::size_t>(config_.layers);
  while (load.pages.size() < job.blocks.size() * layers) {
    Block& block = blocks_[job.blocks[load.pages.size() / layers]];
    const auto layer = static_cast<int>(load.pages.size() % layers);
    const Part& part = block.parts[static_cast<std::size_t>(blocks_.kind(layer))];
    const PageKind& kind = page_kind(block.strand, part.next_low);
    const auto slot = take_host(kind.bytes, layer, false);
    if (!slot) return make_host_room(job.bytes - load.taken_bytes);
    block.pages[static_cast<std::size_t>(layer)].next = *slot;
    load.pages.push_back({key_of(block.name, layer, kind.shape), host_bytes(*slot)});
    load.taken_bytes += kind.bytes;
  }
  const TierStarted started = disk_->load(load.pages);
  if (started.status == Status::rejected) return Status::cancelled;  // forgotten
  if (started.status != Status::ok) return started.status;
  load.job.job = started.job;
  if (is_kept(job)) content_.reprice(job.unit, disk_reload_ns(job.bytes));
  return Status::ok;
}

void KvCache::start_loads() {
  while (!loads_.empty()) {
    const Status status = start_load(loads_.front());
    if (status == Status::busy) return;
    WaitingLoad load = std::move(loads_.front());
    loads_.pop_front();
    if (load.held) disk_->let_go(*load.held);
    if (status == Status::ok) {
      disk_jobs_.push_back(std::move(load.job));
    } else {
      end_disk_job(load.job, status);
    }
  }
}

// Those of a prompt that are on disk, in order, as far as they come. They are pinned.
void KvCache::load_segments(const Running& sequence, Reusable& found) {
  const auto all = std::exchange(found.stored, {});
  // What makes room on the host may take it on the disk.
  std::vector<std::optional<UnitId>> held;
  for (std::size_t i = 0; i < all.size(); ++i)
    held.push_back(disk_->hold({sequence.prefixes[found.units.size() + i].id.words}));
  for (std::size_t i = 0; i < all.size(); ++i) {
    const auto before = found.units.empty() ? std::nullopt : std::optional(found.units.back());
    const auto unit = load_segment(sequence, sequence.prefixes[found.units.size()], before, all[i],
                                   std::exchange(held[i], {}));
    if (!unit) break;
    content_.pin(*unit);
    found.units.push_back(*unit);
  }
  for (const auto& unit : held)
    if (unit) disk_->let_go(*unit);
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
  if (!whole) return Departure::split;
  if (pages.empty()) return Departure::at_once;
  if (disk_->contains(keys)) return Departure::at_once;
  const TierStarted started = disk_->store(pages, content_.facts(unit));
  if (started.status == Status::busy) return Departure::not_now;
  if (started.status != Status::ok) {
    ++counters_.unstored_segments;
    return Departure::at_once;
  }
  job.job = started.job;
  job.unit = unit;
  own_blocks(job);
  storing_bytes_ += job.bytes;
  disk_jobs_.push_back(std::move(job));
  return Departure::when_stored;
}

void KvCache::own_blocks(const DiskJob& job) {
  for (const BlockId id : job.blocks) {
    ++blocks_[id].disk_jobs;
    ++blocks_[id].owners;
  }
}

bool KvCache::end_disk_jobs(Nanos timeout_ns) {
  if (disk_ == nullptr || (disk_jobs_.empty() && disk_->settled())) return false;
  const auto outcome = disk_->next(timeout_ns);
  const auto found = std::find_if(disk_jobs_.begin(), disk_jobs_.end(), [&](const DiskJob& job) {
    return outcome && job.job == outcome->job;
  });
  if (found != disk_jobs_.end()) {
    const DiskJob job = std::move(*found);
    disk_jobs_.erase(found);
    end_disk_job(job, outcome->status);
  }
  reprice_lost();
  return outcome.has_value();
}

// What the disk no longer has would have to be computed again.
void KvCache::reprice_lost() {
  for (const ContentId& content : disk_->take_lost())
    if (const auto unit = content_.find(PrefixId{content.words}))
      content_.reprice(*unit, content_.facts(*unit).reload_ns);
}

void KvCache::end_disk_job(const DiskJob& job, Status status) {
  const bool well = status == Status::ok;
  for (const BlockId id : job.blocks) --blocks_[id].disk_jobs;
  const bool is_kept = this->is_kept(job);
  if (job.loads) {
    ++(well ? counters_.loaded_segments : counters_.unloaded_segments);
    for (const BlockId id : job.blocks)
      for (const LayerKind kind : kAllLayerKinds) end_part(id, kind, well);
    if (!well && is_kept) drop_content(job.unit);
    if (!well) lose(job.blocks, 0, status);
  } else {
    ++(well ? counters_.stored_segments : counters_.unstored_segments);
    storing_bytes_ -= job.bytes;
    // It may have been spoiled, and kept anew, in between: then it is not leaving.
    const bool leaves = is_kept && content_.is_leaving(job.unit);
    if (is_kept && (content_.is_pinned(job.unit) || !leaves)) {
      if (leaves) content_.stay(job.unit);
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
  if (!loads_.empty() || std::any_of(disk_jobs_.begin(), disk_jobs_.end(),
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
