// KV of known content: what stays when its sequence goes on or is gone, and what a prompt that
// begins alike takes over.
//
// Whole blocks are shared. What of a prefix does not fill a block of the own strand is copied: once
// for those that come, so that it can be closed, and from there to each of them.
#include <algorithm>

#include "runtime/kv_cache.hpp"

namespace modalkv {
namespace {

// Pages of a prefix by number: blocks of both strands, and what is left at the end.
std::uint32_t page_number(std::uint32_t of_strand, Tokens index) {
  return static_cast<std::uint32_t>(4 * index) + of_strand;
}

}  // namespace

std::vector<KvCache::Prefix> KvCache::prefixes_of(std::span<const Segment> prompt) const {
  std::vector<Prefix> prefixes;
  PrefixId before;
  Tokens begin = 0;
  for (const Segment& segment : prompt) {
    const auto id = chain(before, segment, segment.floor == PrecisionFloor::high ? "high" : "");
    if (!id) break;
    prefixes.push_back({*id, begin, begin + segment.tokens, segment.token_class});
    before = *id;
    begin += segment.tokens;
  }
  return prefixes;
}

KvCache::Reusable KvCache::reusable(const std::vector<Prefix>& prefixes, const TokenLayout& layout,
                                    Tokens max_tokens) const {
  std::vector<PrefixId> ids;
  for (const Prefix& prefix : prefixes) ids.push_back(prefix.id);
  Reusable found{.units = content_.lookup(ids)};
  for (std::size_t next = found.units.size(); next < prefixes.size(); ++next) {
    auto stored = on_disk(prefixes[next], layout);
    if (!stored) break;
    found.stored.push_back(std::move(*stored));
  }
  cut(found, prefixes, layout, max_tokens);
  return found;
}

// To what can be used: behind an image all of it, behind text as far as there are whole blocks.
// Where that is depends on the prompt alone, so ranks that are given the same bound, one that each
// of them can reuse, reuse the same.
void KvCache::cut(Reusable& found, const std::vector<Prefix>& prefixes, const TokenLayout& layout,
                  Tokens max_tokens) const {
  const Tokens page = config_.own_page_tokens;
  std::size_t segments = found.segments();
  for (found.tokens = 0; segments > 0; --segments) {
    const Prefix& last = prefixes[segments - 1];
    if (last.begin >= max_tokens) continue;
    Tokens tokens = last.end;
    if (!is_visual(last.token_class)) {
      const Tokens end = std::min(last.end, max_tokens), own = layout.own_tokens(end);
      tokens = own % page == 0 ? end : layout.token_of_own(own / page * page);
    }
    if (tokens <= last.begin || tokens > max_tokens) continue;
    found.tokens = tokens;
    break;
  }
  found.units.resize(std::min(found.units.size(), segments));
  found.stored.resize(segments - found.units.size());
}

Tokens KvCache::lookup(std::span<const Segment> prompt) const {
  const auto tokens = prompt_tokens(prompt);
  return tokens ? reusable(prefixes_of(prompt), layout_of(prompt), *tokens - 1).tokens : 0;
}

// What a new sequence need not be given.
Tokens KvCache::reuse(SequenceId id, Tokens max_tokens) {
  Running& sequence = *find(id);
  if (sequence.prefixes.empty()) return 0;
  counters_.known_tokens += sequence.prefixes.back().end;
  Reusable found = reusable(sequence.prefixes, *sequence.layout, max_tokens);
  // Or what is brought from the disk would take their room.
  for (const UnitId unit : found.units) content_.pin(unit);
  load_segments(sequence, found);
  const std::vector<UnitId> pinned = found.units;
  cut(found, sequence.prefixes, *sequence.layout, max_tokens);
  take_over(id, found);
  for (const UnitId unit : pinned) content_.unpin(unit);
  return found.tokens;
}

void KvCache::take_over(SequenceId id, const Reusable& found) {
  Running& sequence = *find(id);
  ++(found.tokens > 0 ? counters_.reuse_hits : counters_.reuse_misses);
  if (found.tokens == 0) return;
  content_.use(found.units);
  const Tokens own_tokens = sequence.layout->own_tokens(found.tokens);
  const auto own_blocks = static_cast<std::size_t>(own_tokens / config_.own_page_tokens);
  for (const UnitId unit : found.units) {
    const CachedSegment& segment = content_[unit];
    for (const BlockId block : segment.own)
      if (sequence.own.size() < own_blocks) {
        share(block, id);
        sequence.own.push_back(block);
        wish(block);
      }
    for (const BlockId block : segment.visual) {
      share(block, id);
      sequence.visual.push_back(block);
      for (const LayerKind kind : kAllLayerKinds) choose_action(blocks_[block], kind);
      wish(block);
    }
  }
  if (own_tokens % config_.own_page_tokens != 0) {
    sequence.tail = content_[found.units.back()].tail;
    share(*sequence.tail, id);
  }
  sequence.appended.assign(sequence.appended.size(), found.tokens);
  sequence.kept_prefixes = found.units.size();
  counters_.reused_tokens += found.tokens;
  settle_own(sequence, found.tokens);
}

// Makes the block that the sequence goes on in, of the rows that it shares.
Status KvCache::bring_tail(SequenceId id) {
  if (!find(id)->tail) return Status::ok;
  const BlockId from = *find(id)->tail;
  const auto index = static_cast<Tokens>(find(id)->own.size());
  if (blocks_[from].parts[0].state == PartState::loading) return Status::busy;
  if (!ledger_.has_room(compute_, 1, 2 * config_.layers)) return Status::busy;
  const BlockId to = make_block(*find(id), Strand::own, index);
  Block& block = blocks_[to];
  Running& sequence = *find(id);
  block.sequences.push_back(id.index);
  const Bytes reserved_bytes = sequence.reserved_bytes;
  Status status = Status::ok;
  for (int layer = 0; layer < config_.layers && status == Status::ok; ++layer) {
    status = take_device(page_kind(Strand::own, false).bytes, sequence,
                         block.pages[static_cast<std::size_t>(layer)].now);
    ++block.parts[static_cast<std::size_t>(blocks_.kind(layer))].begun_layers;
  }
  const Block& source = blocks_[from];
  if (status == Status::ok) {
    // Small, and also where it lies on the host: what follows on this queue finds it there.
    ops_.clear();
    for (int layer = 0; layer < config_.layers; ++layer) {
      const Address& page = source.pages[static_cast<std::size_t>(layer)].now;
      if (config_.verify_every > 0) ops_.push_back(verification(page, from, layer));
      ops_.push_back(Copy{page, block.pages[static_cast<std::size_t>(layer)].now});
    }
    const Submitted submitted = ledger_.submit(compute_, ops_, std::span(&source.last_write, 1));
    status = submitted.status;
    block.last_write = submitted.ticket;
  }
  if (status != Status::ok) {
    drop(to, id, true);
    set_reserved(sequence, reserved_bytes);
    return status;
  }
  sequence.own.push_back(to);
  Errand& errand = add_errand(Errand::Kind::append, block.last_write);
  errand.given = {
      {id, sequence.epoch, sequence.layout->token_of_own(index * config_.own_page_tokens)}};
  errand.step = step_;
  errand.block = from;
  drop(from, id, true);
  sequence.tail.reset();
  return Status::ok;
}

BlockName KvCache::page_name(const Prefix& prefix, Strand strand, Tokens index) {
  return {{prefix.id.words}, page_number(static_cast<std::uint32_t>(strand), index)};
}

BlockName KvCache::tail_name(const Prefix& prefix, Tokens index) {
  return {{prefix.id.words}, page_number(3, index)};
}

// Where all tokens of a block have known content.
BlockName KvCache::name_of(const Running& sequence, Strand strand, Tokens index) const {
  if (sequence.prefixes.empty()) return {};
  const TokenLayout& layout = *sequence.layout;
  const Tokens last = strand == Strand::visual
                          ? layout.visual_first_token(index)
                          : layout.token_of_own((index + 1) * config_.own_page_tokens - 1);
  for (const Prefix& prefix : sequence.prefixes)
    if (last < prefix.end) return page_name(prefix, strand, index);
  return {};
}

// Keeps the segments that are whole by now and known to be good.
void KvCache::keep_content(SequenceId id) {
  const Running* sequence = find(id);
  if (sequence == nullptr || sequence->kept_prefixes == sequence->prefixes.size() ||
      sequence->lost_from != kNeverLost)
    return;
  Tokens good = *std::min_element(sequence->appended.begin(), sequence->appended.end());
  for (const Errand& errand : errands_)
    if (errand.kind == Errand::Kind::append)
      for (const Given& given : errand.given)
        if (given.sequence == id) good = std::min(good, given.first_token);
  while (sequence->kept_prefixes < sequence->prefixes.size() &&
         sequence->prefixes[sequence->kept_prefixes].end <= good)
    if (!keep_segment(id)) {
      // What is behind it would not be found.
      find(id)->prefixes.resize(sequence->kept_prefixes);
      ++counters_.unkept_segments;
    }
}

bool KvCache::keep_segment(SequenceId id) {
  Running& sequence = *find(id);
  const std::size_t nth = sequence.kept_prefixes;
  const Prefix& prefix = sequence.prefixes[nth];
  if (!content_.find(prefix.id)) {
    CachedSegment segment{.prefix = prefix.id};
    if (nth > 0) {
      segment.before = content_.find(sequence.prefixes[nth - 1].id);
      if (!segment.before) return false;
    }
    const LayoutExtent from = sequence.layout->extent(prefix.begin),
                       to = sequence.layout->extent(prefix.end);
    const Tokens page = config_.own_page_tokens;
    const auto blocks = [](const std::vector<BlockId>& all, Tokens begin, Tokens end) {
      return std::vector<BlockId>(all.begin() + begin, all.begin() + end);
    };
    segment.own = blocks(sequence.own, from.own_tokens / page, to.own_tokens / page);
    segment.visual = blocks(sequence.visual, from.visual_blocks, to.visual_blocks);
    bool whole = true;
    segment.for_each_block([&](BlockId of) {
      const Block& block = blocks_[of];
      whole &= is_complete(block) && !block.unit && block.name.prefix.words == prefix.id.words;
    });
    if (!whole) return false;
    if (const Tokens rows = to.own_tokens % page; is_visual(prefix.token_class) && rows > 0) {
      segment.tail = copy_tail(sequence, prefix, rows);
      if (!segment.tail) return false;
    }
    // The tail is nobody else's.
    segment.for_each_block([&](BlockId block) {
      if (block != segment.tail) ++blocks_[block].owners;
    });
    keep(std::move(segment), prefix);
    ++counters_.kept_segments;
  }
  ++sequence.kept_prefixes;
  return true;
}

// A segment that owns its blocks.
UnitId KvCache::keep(CachedSegment segment, const Prefix& prefix) {
  const EvictionFacts facts = facts_of(segment, prefix);
  const UnitId unit = content_.add(std::move(segment), facts);
  content_[unit].for_each_block([&](BlockId block) {
    blocks_[block].unit = unit;
    if (!blocks_[block].sequences.empty()) content_.pin(unit);
  });
  return unit;
}

// The rows of a prefix in a block that is still being filled, closed: nobody's but the cache's.
std::optional<BlockId> KvCache::copy_tail(const Running& sequence, const Prefix& prefix,
                                          Tokens rows) {
  const Tokens index = sequence.layout->own_tokens(prefix.end) / config_.own_page_tokens;
  const BlockId from = sequence.own[static_cast<std::size_t>(index)];
  for (const Part& part : blocks_[from].parts)
    if (part.begun_layers > 0 && (part.low || !on_device(part.state))) return {};
  const PageKind& kind = page_kind(Strand::own, false);
  const SlabAllocator& slots = device_pool_.slots();
  // It takes nothing that is reserved, or kept free to compress in, but from what nobody uses.
  const Bytes needed_bytes =
      config_.layers * room_of(kind.bytes) + reserved_bytes_ + reserve_bytes();
  if (slots.free_bytes() + idle_bytes(Tier::device) < needed_bytes ||
      !ledger_.has_room(compute_, 1, 2 * config_.layers))
    return {};
  const BlockId to = blocks_.add(Strand::own, rows);
  Block& block = blocks_[to];
  block.awake_owners = 0;
  block.stays_high = true;
  block.is_tail = true;
  block.idle_since = clock_;
  block.name = tail_name(prefix, index);
  ops_.clear();
  bool room = true;
  for (int layer = 0; layer < config_.layers && room; ++layer) {
    const auto slot = device_pool_.take(kind.bytes, kTailLane);
    if (!(room = slot.has_value())) break;
    block.pages[static_cast<std::size_t>(layer)].now = *slot;
    Part& part = block.parts[static_cast<std::size_t>(blocks_.kind(layer))];
    ++part.begun_layers, ++part.closed_layers;
    ops_.push_back(Copy{blocks_[from].pages[static_cast<std::size_t>(layer)].now, *slot});
    add_close(*slot, kind.shape, rows, identity(to, layer));
  }
  count_idle(block, +1);
  Submitted submitted{Status::no_space, {}};
  if (room) submitted = ledger_.submit(compute_, ops_, std::span(&blocks_[from].last_write, 1));
  if (submitted.status != Status::ok) {
    let_go(to);
    return {};
  }
  block.last_write = submitted.ticket;
  add_errand(Errand::Kind::tail, submitted.ticket).block = to;
  wish(to);
  return to;
}

EvictionFacts KvCache::facts_of(const CachedSegment& segment, const Prefix& prefix) const {
  EvictionFacts facts{.bytes = kPageAlignmentBytes, .token_class = prefix.token_class};
  // As small as it may become.
  segment.for_each_block([&](BlockId id) {
    const Block& block = *blocks_.find(id);
    for (const LayerKind kind : kAllLayerKinds)
      facts.bytes +=
          blocks_.layers_of(kind) * page_kind(block.strand, may_be_low(block, kind)).bytes;
  });
  facts.format = is_visual(prefix.token_class) && config_.policy.visual_low
                     ? *config_.policy.visual_low
                     : config_.policy.high;
  facts.reload_ns = (prefix.end - prefix.begin) * config_.recompute_token_ns;
  return facts;
}

// With all that is only found behind it.
void KvCache::drop_content(UnitId unit) {
  for (const CachedSegment& segment : content_.erase(unit))
    segment.for_each_block([&](BlockId block) {
      blocks_[block].unit.reset();
      let_go(block);
    });
}

void KvCache::forget_content() {
  for (const UnitId unit : content_.units())
    if (content_.contains(unit)) drop_content(unit);
  if (disk_ != nullptr) disk_->forget();
  for (Running& sequence : sequences_) {
    sequence.prefixes.clear();
    sequence.kept_prefixes = 0;
  }
  progress();
}

// Bytes of a tier that will be free soon. What has nothing there stays; what cannot go to the disk,
// for it does not lie on the host as a whole, goes last.
Bytes KvCache::evict_content(Bytes bytes, Tier tier) {
  const Bytes before = retired_bytes(tier);
  Bytes stored_bytes = 0;
  std::vector<UnitId> elsewhere, split;
  while (retired_bytes(tier) - before + stored_bytes < bytes) {
    const auto unit = content_.prepare();
    if (!unit) break;
    if (!lies_in(content_[*unit], tier)) {
      elsewhere.push_back(*unit);
      continue;
    }
    switch (depart(*unit)) {
      case Departure::at_once:
        ++counters_.evicted_segments;
        drop_content(*unit);
        break;
      case Departure::split:
        split.push_back(*unit);
        break;
      case Departure::when_stored:
        stored_bytes += disk_jobs_.back().bytes;
        break;
      case Departure::not_now:
        elsewhere.push_back(*unit);
        bytes = 0;
        stored_bytes = std::max(stored_bytes, Bytes{1});  // it will
        break;
    }
  }
  for (const UnitId unit : elsewhere) content_.stay(unit);
  for (const UnitId unit : split) {
    if (retired_bytes(tier) - before + stored_bytes >= bytes) {
      content_.stay(unit);
      continue;
    }
    ++counters_.unstored_segments;
    ++counters_.evicted_segments;
    drop_content(unit);
  }
  return retired_bytes(tier) - before + stored_bytes;
}

// What is in use but for the copy of its last rows, which nobody has: its sequences keep all they
// have, but others will not find it.
Bytes KvCache::evict_tails(Bytes bytes, Tier tier) {
  if (idle_tail_bytes(tier) == 0) return 0;
  std::vector<std::pair<std::uint64_t, UnitId>> tails;
  blocks_.for_each([&](BlockId, const Block& block) {
    if (block.is_tail && block.unit && block.sequences.empty() && block.disk_jobs == 0 &&
        content_.is_pinned(*block.unit) && tier_of(block.pages.front().now) == tier)
      tails.emplace_back(block.idle_since, *block.unit);
  });
  std::sort(tails.begin(), tails.end());
  const Bytes before = retired_bytes(tier);
  for (const auto& [idle_since, unit] : tails) {
    if (retired_bytes(tier) - before >= bytes) break;
    if (!content_.contains(unit)) continue;  // behind another one
    ++counters_.evicted_segments;
    drop_content(unit);
  }
  return retired_bytes(tier) - before;
}

// Whether something of it does. What has no blocks, a few words, is in nobody's way and goes first:
// else it would hold what is in front of it.
bool KvCache::lies_in(const CachedSegment& segment, Tier tier) const {
  bool found = segment.own.empty() && segment.visual.empty() && !segment.tail;
  segment.for_each_block([&](BlockId id) {
    for (const PageSlots& page : blocks_.find(id)->pages)
      found |= page.now.bytes > 0 && tier_of(page.now) == tier;
  });
  return found;
}

Bytes KvCache::retired_bytes(Tier tier) const {
  if (tier == Tier::device) return device_pool_.retired_bytes();
  Bytes bytes = 0;
  for (const Host& host : hosts_) bytes += host.pool.retired_bytes();
  return bytes;
}

}  // namespace modalkv
