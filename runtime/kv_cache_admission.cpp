// Whether there is room for what an engine is about to begin.
#include <algorithm>

#include "runtime/kv_cache.hpp"

namespace modalkv {

// Of the pages that hold the tokens [begin, end) and no token before them, with their share of what
// a slab leaves over. `compact`: as small as the policy permits, else as they are made.
Bytes KvCache::room_for(const TokenLayout& layout, Tokens begin, Tokens end, bool compact) const {
  const LayoutExtent from = layout.extent(begin), to = layout.extent(end);
  Bytes bytes = 0;
  for (const Strand strand : {Strand::own, Strand::visual})
    for (const LayerKind kind : kAllLayerKinds) {
      // Text may stay in high precision.
      const bool low = compact && strand == Strand::visual && may_be_low(strand, kind);
      bytes += (to.blocks(strand) - from.blocks(strand)) * blocks_.layers_of(kind) *
               room_of(page_kind(strand, low).bytes);
    }
  return bytes;
}

Bytes KvCache::room_of(Bytes page_bytes) const {
  const auto share = [&](const PagePool& pool) {
    return divide_up(pool.slots().slab_bytes(), pool.slots().slab_bytes() / page_bytes);
  };
  Bytes bytes = share(device_pool_);
  for (const Host& host : hosts_) bytes = std::max(bytes, share(host.pool));
  return bytes;
}

// What must be on the device: pages of each layer that are being filled, those of two strands for
// the newest, and room to compress in.
Bytes KvCache::open_bytes() const {
  const auto alive = std::count_if(sequences_.begin(), sequences_.end(),
                                   [](const Running& s) { return s.alive && !s.paused; });
  return config_.layers * ((alive + 1) * room_of(page_kind(Strand::own, false).bytes) +
                           2 * room_of(page_kind(Strand::visual, false).bytes)) +
         reserve_bytes();
}

bool KvCache::can_admit(std::span<const Segment> prompt, Tokens new_tokens) const {
  const auto prompt_tokens = KvCache::prompt_tokens(prompt);
  if (!prompt_tokens || new_tokens < 0) return false;
  const Tokens tokens = *prompt_tokens + new_tokens;
  Bytes held_bytes = reserved_bytes_ + room_for(layout_of(prompt), 0, tokens, true);
  for (const Running& sequence : sequences_)
    if (sequence.alive)
      held_bytes += room_for(*sequence.layout, 0, sequence.appended.front(), true) +
                    promoted_pages(sequence) * room_of(page_kind(Strand::promoted, false).bytes);
  // A slab of each size, and lane, may be held for a few pages.
  const auto usable = [](const PagePool& pool, Bytes slabs) {
    return std::max(pool.capacity_bytes() - slabs * pool.slots().slab_bytes(), Bytes{0});
  };
  constexpr Bytes kPageSizes = 4;
  const Bytes device_bytes = usable(device_pool_, kPageSizes + 1);
  Bytes room_bytes = device_bytes - reserve_bytes();
  if (may_leave())
    for (const Host& host : hosts_) room_bytes += usable(host.pool, kPageSizes * config_.layers);
  return held_bytes <= room_bytes && open_bytes() + reserved_bytes_ <= device_bytes;
}

Status KvCache::reserve(SequenceId id, Tokens tokens) {
  Running* sequence = find(id);
  if (sequence == nullptr || tokens < 0 || sequence->paused || !is_even(*sequence))
    return Status::rejected;
  progress();
  const Tokens begin = sequence->appended.front();
  Bytes bytes = room_for(*sequence->layout, begin, begin + tokens, false);
  // The block that it goes on in is still to be made.
  if (sequence->tail && tokens > 0)
    bytes += config_.layers * room_of(page_kind(Strand::own, false).bytes);
  const Bytes others = reserved_bytes_ - sequence->reserved_bytes;
  const Bytes slab_bytes = device_pool_.slots().slab_bytes();
  // Whole slabs: pages of one size cannot use what is left in another's.
  const Bytes wanted = bytes == 0 ? 0 : others + bytes + 2 * slab_bytes;
  if (wanted > device_pool_.slots().free_bytes())
    return no_room(wanted > device_pool_.capacity_bytes() ? Status::no_space : make_room(wanted));
  set_reserved(*sequence, bytes);
  sequence->reserved_until = begin + tokens;
  return Status::ok;
}

void KvCache::set_reserved(Running& sequence, Bytes bytes) {
  reserved_bytes_ += bytes - sequence.reserved_bytes;
  sequence.reserved_bytes = bytes;
}

}  // namespace modalkv
