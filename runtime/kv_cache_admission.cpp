// Whether there is room for what an engine is about to begin.
#include <algorithm>

#include "runtime/kv_cache.hpp"

namespace modalkv {

// Of the pages that hold the tokens [begin, end) and no token before them. `compact`: as small and
// as far from the device as the policy permits, else as they are made.
Bytes KvCache::pages_bytes(const TokenLayout& layout, Tokens begin, Tokens end,
                           bool compact) const {
  Bytes bytes = 0;
  for (const Strand strand : {Strand::own, Strand::visual}) {
    const bool own = strand == Strand::own;
    const auto blocks = [&](Tokens tokens) {
      return own ? divide_up(layout.own_tokens(tokens), config_.own_page_tokens)
                 : layout.visual_blocks(tokens);
    };
    const Tokens count = blocks(end) - blocks(begin);
    for (const LayerKind kind : kAllLayerKinds) {
      // Text stays in high precision within the recent window, and may stay so beyond it.
      const bool low = compact && !own && may_be_low(strand, kind);
      bytes += count * blocks_.layers_of(kind) * page_kind(strand, low).bytes;
    }
  }
  return bytes;
}

// Of the pages that every sequence must have on the device: those that are being filled.
Bytes KvCache::open_bytes() const {
  const auto alive = std::count_if(sequences_.begin(), sequences_.end(),
                                   [](const Running& s) { return s.alive && !s.paused; });
  const Bytes page = page_kind(Strand::own, false).bytes;
  return alive * config_.layers * page;
}

bool KvCache::can_admit(std::span<const Segment> prompt, Tokens new_tokens) const {
  Tokens tokens = new_tokens;
  for (const Segment& segment : prompt) {
    if (segment.tokens < 1) return false;
    tokens += segment.tokens;
  }
  if (new_tokens < 0) return false;
  const TokenLayout layout = layout_of(prompt);
  Bytes held_bytes = reserved_bytes_ + pages_bytes(layout, 0, tokens, true);
  for (const Running& sequence : sequences_)
    if (sequence.alive)
      held_bytes += pages_bytes(*sequence.layout, 0, sequence.appended.front(), true);
  // A slab of each size may be held for a few pages.
  const auto usable = [](const PagePool& pool) {
    return std::max(pool.capacity_bytes() - static_cast<Bytes>(4) * pool.slots().slab_bytes(),
                    Bytes{0});
  };
  const bool may_leave = config_.policy.places.streamed || config_.policy.places.cpu;
  const Bytes device_bytes = usable(device_pool_);
  Bytes room_bytes = device_bytes;
  for (const Host& host : hosts_)
    if (may_leave) room_bytes += usable(host.pool);
  const Bytes open = open_bytes() + config_.layers * page_kind(Strand::own, false).bytes;
  return held_bytes <= room_bytes && open + reserved_bytes_ <= device_bytes;
}

Status KvCache::reserve(SequenceId id, Tokens tokens) {
  Running* sequence = find(id);
  if (sequence == nullptr || tokens < 0 || sequence->paused || !is_even(*sequence))
    return Status::rejected;
  progress();
  const Tokens begin = sequence->appended.front();
  const Bytes bytes = pages_bytes(*sequence->layout, begin, begin + tokens, false);
  const Bytes others = reserved_bytes_ - sequence->reserved_bytes;
  // Whole slabs, as pages of one size cannot use what is left in another's.
  const Bytes wanted = bytes == 0 ? 0 : others + bytes + device_pool_.slots().slab_bytes();
  if (wanted > device_pool_.slots().free_bytes()) {
    const Status status =
        wanted > device_pool_.capacity_bytes() ? Status::no_space : make_room(wanted);
    return no_room(status);
  }
  set_reserved(*sequence, bytes);
  sequence->reserved_until = begin + tokens;
  return Status::ok;
}

void KvCache::set_reserved(Running& sequence, Bytes bytes) {
  reserved_bytes_ += bytes - sequence.reserved_bytes;
  sequence.reserved_bytes = bytes;
}

}  // namespace modalkv
