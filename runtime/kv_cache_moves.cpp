// Where blocks should be, and the transitions that take them there.
#include <algorithm>
#include <tuple>

#include "runtime/kv_cache.hpp"

namespace modalkv {

void KvCache::set_placement(const Placement& placement) {
  targets_ = placement.shares;
  assigned_ = {};
  blocks_.for_each([&](BlockId, Block& block) {
    for (Part& part : block.parts) part.assigned = false;
  });
  for (Running& sequence : sequences_) {
    if (!sequence.alive) continue;
    for (const BlockId id : sequence.visual) {
      for (const LayerKind kind : kAllLayerKinds) choose_action(blocks_[id], kind);
      wish(id);
    }
    if (sequence.promotion && sequence.promotion->state == Promotion::State::kept)
      for (const BlockId id : sequence.promoted) {
        choose_action(blocks_[id], LayerKind::planned);
        wish(id);
      }
    sequence.settled_own = 0;
    settle_own(sequence, sequence.appended.front());
  }
}

bool KvCache::may_leave() const {
  return config_.policy.places.streamed || config_.policy.places.cpu;
}

bool KvCache::may_be_low(Strand strand, LayerKind kind) const {
  const auto& format = strand == Strand::own ? config_.policy.text_low : config_.policy.visual_low;
  return kind == LayerKind::planned && format.has_value();
}

bool KvCache::may_be_low(const Block& block, LayerKind kind) const {
  return !block.stays_high && may_be_low(block.strand, kind);
}

std::size_t KvCache::group_of(const Block& block, LayerKind kind) const {
  if (kind == LayerKind::held_high) return kMaxGroups - 1;
  Permission permission = Permission::high_only;
  if (may_be_low(block, kind))
    permission = block.strand == Strand::own ? Permission::text_low : Permission::visual_low;
  return static_cast<std::size_t>(permission);
}

// The action whose share of the group is missing most, of those that the block can take.
void KvCache::choose_action(Block& block, LayerKind kind) {
  Part& part = block.parts[static_cast<std::size_t>(kind)];
  if (part.assigned) return;
  const std::size_t group = group_of(block, kind);
  Action chosen = part.action;
  Tokens total = block.tokens;
  for (const Tokens tokens : assigned_[group]) total += tokens;
  double most = 0;
  for (int a = 0; a < kActions; ++a) {
    const auto action = static_cast<Action>(a);
    if (is_low(action) && !may_be_low(block, kind)) continue;
    const auto at = static_cast<std::size_t>(a);
    const double missing = targets_[group][at] * static_cast<double>(total) -
                           static_cast<double>(assigned_[group][at]);
    if (missing <= most) continue;
    most = missing;
    chosen = action;
  }
  assign_action(block, kind, part.low ? place_of(chosen, true) : chosen);
}

void KvCache::change_action(Block& block, LayerKind kind, Action action) {
  forget_action(block, kind);
  assign_action(block, kind, action);
}

// What is on the host is listed by who attends to it.
void KvCache::assign_action(Block& block, LayerKind kind, Action action) {
  Part& part = block.parts[static_cast<std::size_t>(kind)];
  if (on_host(part.state) && is_on_cpu(part.action) != is_on_cpu(action)) pages_moved(block, kind);
  part.action = action;
  part.assigned = true;
  assigned_[group_of(block, kind)][static_cast<std::size_t>(action)] += block.tokens;
}

void KvCache::forget_action(Block& block, LayerKind kind) {
  Part& part = block.parts[static_cast<std::size_t>(kind)];
  if (part.assigned)
    assigned_[group_of(block, kind)][static_cast<std::size_t>(part.action)] -= block.tokens;
  part.assigned = false;
}

bool KvCache::wants_low(const Block& block, LayerKind kind) const {
  return is_low(block.parts[static_cast<std::size_t>(kind)].action) && may_be_low(block, kind);
}

// Blocks of the own strand get their action when the recent window has left them. The first block
// holds the first tokens and stays.
void KvCache::settle_own(Running& sequence, Tokens appended) {
  const auto settles = [&](Tokens tokens) {
    return (sequence.settled_own + 1) * config_.own_page_tokens <=
           sequence.layout->own_tokens(tokens) - config_.policy.window_tokens;
  };
  // A layer that has `appended` tokens says that no more blocks than these may be settled.
  if (!settles(appended) && sequence.reserved_bytes == 0) return;
  const Tokens least = *std::min_element(sequence.appended.begin(), sequence.appended.end());
  if (sequence.reserved_bytes > 0 && least >= sequence.reserved_until) set_reserved(sequence, 0);
  while (settles(least)) {
    const BlockId id = sequence.own[static_cast<std::size_t>(sequence.settled_own++)];
    if (sequence.settled_own * config_.own_page_tokens <= config_.policy.pinned_tokens) continue;
    for (const LayerKind kind : kAllLayerKinds) choose_action(blocks_[id], kind);
    wish(id);
  }
}

void KvCache::wish(BlockId id) {
  for (const LayerKind kind : kAllLayerKinds)
    if (blocks_.layers_of(kind) > 0 && wanted(blocks_[id], kind)) wishes_.push_back({id, kind});
}

// The transition that brings a part nearer to what is wanted of it. What nobody uses stays where it
// is until there is need for room.
std::optional<PartState> KvCache::wanted(const Block& block, LayerKind kind) const {
  if (block.disk_jobs > 0) return {};
  const Part& part = block.parts[static_cast<std::size_t>(kind)];
  const int layers = blocks_.layers_of(kind);
  const bool complete = part.closed_layers == layers;
  if (block.is_tail) {
    const bool leaves = part.state == PartState::resident && complete && may_leave();
    return leaves ? std::optional(PartState::leaving) : std::nullopt;
  }
  if (block.sequences.empty()) return {};
  if (part.state == PartState::resident) {
    if (block.awake_owners == 0 && part.begun_layers == layers) return PartState::leaving;
    if (!complete || is_candidate(block, kind)) return {};
    if (!part.low && wants_low(block, kind) && !part.incompressible) return PartState::compressing;
    if (!is_resident(part.action)) return PartState::leaving;
  }
  if (part.state == PartState::hosted && block.awake_owners > 0 &&
      (!complete || is_resident(part.action)))
    return PartState::arriving;
  return {};
}

void KvCache::pump() {
  stuck_ = true;
  bool host_is_full = false;
  for (std::size_t left = wishes_.size(); left > 0; --left) {
    const Wish wish = wishes_.front();
    wishes_.pop_front();
    const Block* block = blocks_.find(wish.block);
    const auto transition = block == nullptr ? std::nullopt : wanted(*block, wish.kind);
    if (!transition) continue;
    const bool leaves = *transition == PartState::leaving;
    const Status status =
        leaves && host_is_full ? Status::no_space : start_transition(wish, *transition);
    host_is_full |= leaves && status == Status::no_space;
    if (status == Status::ok) stuck_ = false;
    if (status == Status::busy || status == Status::no_space) wishes_.push_back(wish);
    if (status == Status::busy) {
      stuck_ = false;
      break;
    }
  }
  if (wishes_.empty()) stuck_ = false;
}

Status KvCache::start_transition(const Wish& wish, PartState transition) {
  Block& block = blocks_[wish.block];
  Part& part = block.parts[static_cast<std::size_t>(wish.kind)];
  const bool compresses = transition == PartState::compressing;
  const QueueId queue = compresses ? compute_ : transition == PartState::leaving ? d2h_ : h2d_;
  const int layers = blocks_.layers_of(wish.kind), ops = compresses ? 2 * layers : layers;
  const bool verifies =
      transition == PartState::arriving && config_.verify_every > 0 && part.closed_layers == layers;
  if (ops > ledger_.max_ops(queue)) return Status::rejected;
  if (!ledger_.has_room(queue, 1, ops) || (verifies && !ledger_.has_room(compute_, 1, layers)))
    return Status::busy;
  const bool leaves = transition == PartState::leaving;
  const Bytes page_bytes = page_kind(block.strand, compresses || part.low).bytes;
  ops_.clear();
  bool room = true;
  for (int layer = 0; layer < config_.layers && room; ++layer) {
    if (blocks_.kind(layer) != wish.kind) continue;
    PageSlots& page = block.pages[static_cast<std::size_t>(layer)];
    const auto slot = leaves ? take_host(page_bytes, layer, is_on_cpu(part.action))
                             : device_pool_.take(page_bytes);
    if (!slot) {
      room = false;
      break;
    }
    page.next = *slot;
    if (compresses) {
      add_compression(block, page, identity(wish.block, layer));
    } else {
      ops_.push_back(Copy{page.now, page.next});
    }
  }
  Submitted submitted{Status::no_space, {}};
  if (room) submitted = ledger_.submit(queue, ops_, std::span(&block.last_write, 1));
  if (submitted.status != Status::ok) {
    for (int layer = 0; layer < config_.layers; ++layer) {
      PageSlots& page = block.pages[static_cast<std::size_t>(layer)];
      if (blocks_.kind(layer) != wish.kind || page.next.bytes == 0) continue;
      pool_of(page.next).put_back(page.next);
      page.next = {};
    }
    // A tail can wait where it is.
    if (room || !leaves || block.is_tail) return submitted.status;
    const Bytes bytes = layers * page_bytes;
    if (make_host_room(bytes) == Status::busy) return Status::busy;
    // What runs comes before what others could reuse; a tail's room is good for pages of its size.
    const bool fits = page_bytes == page_kind(Strand::own, false).bytes;
    return fits && evict_tails(bytes, Tier::host) > 0 ? Status::busy : Status::no_space;
  }
  if (verifies) {
    // What comes to stay is read many times: all of it is verified, behind the copy.
    ops_.clear();
    for (int layer = 0; layer < config_.layers; ++layer)
      if (blocks_.kind(layer) == wish.kind)
        ops_.push_back(
            verification(block.pages[static_cast<std::size_t>(layer)].next, wish.block, layer));
    counters_.verified_pages += layers;
    const Submitted verified = ledger_.submit(compute_, ops_, std::span(&submitted.ticket, 1));
    if (verified.status == Status::ok) submitted = verified;
  }
  blocks_.begin(wish.block, wish.kind, transition, compresses || part.low);
  Errand& errand = add_errand(Errand::Kind::transition, submitted.ticket);
  errand.block = wish.block;
  errand.layer_kind = wish.kind;
  return Status::ok;
}

KvCache::Host& KvCache::host_of(const Address& page) {
  return *std::find_if(hosts_.begin(), hosts_.end(),
                       [&](const Host& host) { return host.pool.where().space == page.space; });
}

PagePool& KvCache::pool_of(const Address& page) {
  return tier_of(page) == Tier::device ? device_pool_ : host_of(page).pool;
}

// On the nearest node that has room; what nodes attend to themselves is spread over their cores.
std::optional<Address> KvCache::take_host(Bytes bytes, int layer, bool cpu) {
  const auto free_bytes = [](const Host& host) {
    return host.pool.capacity_bytes() - host.pool.used_bytes();
  };
  if (cpu) {
    const auto emptiest = std::max_element(
        hosts_.begin(), hosts_.end(),
        [&](const Host& a, const Host& b) { return free_bytes(a) < free_bytes(b); });
    if (const auto slot = emptiest->pool.take(bytes, layer)) return slot;
  }
  for (Host& host : hosts_)
    if (const auto slot = host.pool.take(bytes, layer)) return slot;
  return {};
}

// Room for a page's keys and values between two operations of a group.
std::pair<Address, Address> KvCache::scratch_rows(Tokens tokens) const {
  const Address& scratch = areas_.scratch;
  const Bytes bytes = rows_bytes(tokens);
  return {{scratch.space, scratch.offset, bytes},
          {scratch.space, scratch.offset + scratch.bytes / 2, bytes}};
}

// Takes a page's rows back and encodes them anew.
void KvCache::add_compression(const Block& block, const PageSlots& page,
                              const PageIdentity& identity) {
  const auto [keys, values] = scratch_rows(block.tokens);
  ops_.push_back(Decode{page.now, keys, values, page_kind(block.strand, false).shape, block.tokens,
                        config_.input});
  ops_.push_back(Encode{.keys = keys,
                        .values = values,
                        .page = page.next,
                        .shape = page_kind(block.strand, true).shape,
                        .tokens = block.tokens,
                        .input = config_.input,
                        .content = identity.content,
                        .generation = identity.generation});
}

// A slot for a new page. `busy`, and on its way to having room, or `no_space`.
Status KvCache::take_device(Bytes bytes, Running& sequence, Address& slot) {
  const SlabAllocator& slots = device_pool_.slots();
  const Bytes others = reserved_bytes_ - sequence.reserved_bytes;
  if (others > 0 && slots.free_bytes() < others + 2 * slots.slab_bytes())
    return make_room(others + 2 * slots.slab_bytes());
  const Bytes reserve = reserve_bytes();
  if (reserve > 0 && slots.free_bytes() < reserve + slots.slab_bytes() &&
      make_room(reserve + slots.slab_bytes()) == Status::busy)
    return Status::busy;
  // Where nothing can be compressed or leave, the reserve is of no use.
  const auto taken = device_pool_.take(bytes);
  if (!taken) return make_room(bytes);
  slot = *taken;
  set_reserved(sequence, std::max(sequence.reserved_bytes - room_of(bytes), Bytes{0}));
  return Status::ok;
}

// `busy`: something is in motion, now if not before, that will free device memory. `no_space`:
// nothing can be.
Status KvCache::make_room(Bytes bytes) {
  Bytes coming = device_pool_.retired_bytes();
  for (const Errand& errand : errands_)
    if (errand.kind == Errand::Kind::transition)
      if (const Block* block = blocks_.find(errand.block))
        coming += freed_bytes(*block, errand.layer_kind);
  if (coming >= bytes) return Status::busy;
  // Content that nobody uses first.
  const std::vector<Candidate> all = candidates();
  bool left = may_leave();
  for (const bool used : {false, true}) {
    for (const Candidate& candidate : all) {
      if (coming >= bytes) return Status::busy;
      if (candidate.used != used || (candidate.leaves && !left)) continue;
      const Status status = move_out(candidate, coming);
      if (status == Status::busy) return status;
      if (candidate.leaves && status != Status::ok) left = false;
    }
    // What could not leave.
    if (coming < bytes && !left && idle_bytes(Tier::device) > 0)
      coming += evict_content(bytes - coming, Tier::device);
  }
  if (coming < bytes && !left) coming += evict_tails(bytes - coming, Tier::device);
  return coming > 0 || !ledger_.idle() ? Status::busy : Status::no_space;
}

// The least recently used first; what can be compressed there before anything leaves.
std::vector<KvCache::Candidate> KvCache::candidates() const {
  std::vector<Candidate> all;
  blocks_.for_each([&](BlockId id, const Block& block) {
    const bool used = !block.sequences.empty();
    for (const LayerKind kind : kAllLayerKinds) {
      const Part& part = block.parts[static_cast<std::size_t>(kind)];
      if (part.state != PartState::resident || part.closed_layers < blocks_.layers_of(kind) ||
          part.closed_layers == 0 || (used && !part.assigned))
        continue;
      const std::uint64_t used_at = used ? this->used_at(block) : block.idle_since;
      if (!part.low && may_be_low(block, kind) && !part.incompressible)
        all.push_back({used, false, is_candidate(block, kind), used_at, {id, kind}});
      if (may_leave()) all.push_back({used, true, false, used_at, {id, kind}});
    }
  });
  std::sort(all.begin(), all.end(), [](const Candidate& a, const Candidate& b) {
    const auto key = [](const Candidate& c) {
      return std::tuple(c.leaves, c.may_be_promoted, c.used_at, c.wish.block.index, c.wish.kind);
    };
    return key(a) < key(b);
  });
  return all;
}

// `busy`: there will be room for that.
Status KvCache::move_out(const Candidate& candidate, Bytes& coming) {
  Block* block = blocks_.find(candidate.wish.block);
  const LayerKind kind = candidate.wish.kind;
  // It may have been chosen, or evicted, before.
  if (block == nullptr || block->parts[static_cast<std::size_t>(kind)].state != PartState::resident)
    return Status::ok;
  const PartState transition = candidate.leaves ? PartState::leaving : PartState::compressing;
  const Part& part = block->parts[static_cast<std::size_t>(kind)];
  const Action before = part.action;
  if (candidate.used) {
    const Action away = config_.policy.places.streamed ? Action::streamed_high : Action::cpu_high;
    change_action(*block, kind, candidate.leaves ? place_of(away, part.low) : Action::resident_low);
  }
  const Status status = start_transition(candidate.wish, transition);
  if (status == Status::ok) {
    coming += freed_bytes(*block, kind);
  } else if (candidate.used) {
    change_action(*block, kind, before);
  }
  return status;
}

// On the host, of content that nobody uses. `busy`: there will be some. Nothing leaves where all of
// it would not be enough.
Status KvCache::make_host_room(Bytes bytes) {
  Bytes coming = retired_bytes(Tier::host) + storing_bytes_;
  if (coming >= bytes) return Status::busy;
  // What is being stored is coming already, and tails leave with what is in use only.
  const Bytes idle = idle_bytes(Tier::host) - storing_bytes_ - idle_tail_bytes(Tier::host);
  if (coming + idle >= bytes) coming += evict_content(bytes - coming, Tier::host);
  return coming > 0 ? Status::busy : Status::no_space;
}

// When it was last attended to.
std::uint64_t KvCache::used_at(const Block& block) const {
  std::uint64_t latest = 0;
  for (const std::uint32_t sequence : block.sequences)
    latest = std::max(latest, sequences_[sequence].used_at);
  return latest;
}

// Compressing takes room before it gives some: whole slabs for a block are kept free for it.
Bytes KvCache::reserve_bytes() const {
  if (!may_be_low(Strand::visual, LayerKind::planned)) return 0;
  const Bytes slab_bytes = device_pool_.slots().slab_bytes();
  const Bytes pages = slab_bytes / page_kind(Strand::visual, true).bytes;
  return slab_bytes * divide_up(blocks_.layers_of(LayerKind::planned), pages);
}

// For a part that must be on the device and is not.
Status KvCache::await_arrival(const Block& block, LayerKind kind) {
  const Part& part = block.parts[static_cast<std::size_t>(kind)];
  if (part.state != PartState::hosted) return Status::busy;
  return make_room(blocks_.layers_of(kind) * page_kind(block.strand, part.low).bytes);
}

int KvCache::first_layer(LayerKind kind) const {
  int layer = 0;
  while (blocks_.kind(layer) != kind) ++layer;
  return layer;
}

// Of device memory, when the transition of a part ends well.
Bytes KvCache::freed_bytes(const Block& block, LayerKind kind) const {
  const Part& part = block.parts[static_cast<std::size_t>(kind)];
  if (part.state != PartState::leaving && part.state != PartState::compressing) return 0;
  return blocks_.layers_of(kind) * page_kind(block.strand, part.low).bytes;
}

}  // namespace modalkv
