// Set-up and sequences.
#include "runtime/kv_cache.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <utility>

namespace modalkv {
namespace {

std::vector<LayerKind> kinds_of(const RuntimeConfig& config) {
  const StepProblem problem{.policy = &config.policy, .layers = config.layers};
  std::vector<LayerKind> kinds;
  for (int layer = 0; layer < config.layers; ++layer) kinds.push_back(problem.kind_of(layer));
  return kinds;
}

SpaceId space(Device& device, SpaceInfo::Kind kind, std::span<std::byte> memory) {
  const RegisteredSpace registered =
      device.register_space({kind, static_cast<Bytes>(memory.size()), memory.data()});
  if (registered.status != Status::ok) throw Error("KV cache: the device takes no more memory");
  return registered.space;
}

QueueId queue(const Device& device, QueueKind kind, int numa_node = 0) {
  if (const auto found = find_queue(device, kind, numa_node)) return *found;
  throw Error(fmt::format("KV cache: the device has no queue for {} {}", name(kind), numa_node));
}

// One after another, in bytes of a space.
class Carver {
 public:
  Carver(SpaceId space, Bytes bytes) : space_(space), bytes_(bytes) {}
  Address take(Bytes bytes, const char* what) {
    const Bytes begin = round_up(used_, kPageAlignmentBytes);
    if (bytes <= 0 || begin + bytes > bytes_)
      throw Error(fmt::format("KV cache: {} bytes are too few, {} need {}", bytes_, what,
                              begin + std::max(bytes, Bytes{1})));
    used_ = begin + bytes;
    return {space_, begin, bytes};
  }
  Address rest(const char* what) {
    const Bytes begin = round_up(used_, kPageAlignmentBytes);
    return take(bytes_ - begin, what);
  }

 private:
  SpaceId space_;
  Bytes bytes_, used_ = 0;
};

// Of all kinds of pages, ascending.
std::vector<Bytes> page_sizes(const RuntimeConfig& config) {
  const auto bytes = [&](Tokens tokens, const KvFormat& format) {
    return page_bytes({tokens, config.kv_heads, config.head_dim, format});
  };
  const PrecisionPolicy& policy = config.policy;
  std::vector<Bytes> sizes{
      bytes(config.own_page_tokens, policy.high),
      bytes(config.own_page_tokens, policy.text_low.value_or(policy.high)),
      bytes(config.visual_page_tokens, policy.high),
      bytes(config.visual_page_tokens, policy.visual_low.value_or(policy.high))};
  std::sort(sizes.begin(), sizes.end());
  sizes.erase(std::unique(sizes.begin(), sizes.end()), sizes.end());
  return sizes;
}

// As large as gives every size of page room, but no larger than leaves many slabs.
Bytes device_slab_bytes(const RuntimeConfig& config, Bytes pool_bytes) {
  return round_up(std::max(std::min(pool_bytes / 64, 8 * kMiB), largest_page_bytes(config)),
                  kPageAlignmentBytes);
}

// The same for each layer. A power of two: a whole number of slabs is a chunk of pinned memory.
Bytes host_slab_bytes(const RuntimeConfig& config, Bytes pool_bytes, Bytes chunk_bytes) {
  const Bytes most = chunk_bytes > 0 ? std::min(chunk_bytes, 8 * kMiB) : 8 * kMiB;
  const Bytes share =
      std::clamp(pool_bytes / (16 * config.layers), Bytes{1}, std::max(most / 2, Bytes{1}));
  const auto bytes = static_cast<Bytes>(
      std::bit_ceil(static_cast<std::uint64_t>(std::max(share, largest_page_bytes(config)))));
  if (chunk_bytes > 0 && chunk_bytes < pool_bytes && chunk_bytes % bytes != 0)
    throw Error(
        fmt::format("KV cache: chunks of host memory must be a multiple of {} bytes, not {}", bytes,
                    chunk_bytes));
  return bytes;
}

// Checks what a user may get wrong.
RuntimeConfig checked(RuntimeConfig config) {
  const auto refuse = [](bool when, const char* why) {
    if (when) throw Error(fmt::format("KV cache: {}", why));
  };
  refuse(config.layers < 1 || config.kv_heads < 1 || config.query_heads < 1 ||
             config.query_heads % config.kv_heads != 0,
         "a model has layers, and query heads that are a multiple of its KV heads");
  refuse(payload_bits(config.input) != 16, "queries, keys and values must be fp16 or bf16");
  refuse(!is_16bit(config.policy.high), "the policy's high precision must be of 16 bits");
  refuse(config.visual_page_tokens % 64 != 0, "visual_page_tokens must be a multiple of 64");
  for (const auto& low : {config.policy.text_low, config.policy.visual_low})
    for (const Tokens tokens : {config.own_page_tokens, config.visual_page_tokens})
      refuse(
          !is_page({tokens, config.kv_heads, config.head_dim, low.value_or(config.policy.high)}),
          "there are no pages of this many tokens, heads and dimensions in the policy's formats");
  refuse(config.tensor_parallel_ranks < 1, "a tensor-parallel group has a rank at least");
  refuse(config.window < 0, "a window is of some tokens, or 0");
  refuse(config.overdue_ns < 1, "overdue_ns is a time");
  refuse(config.verify_every < 0, "verify_every is a number of pages, or 0");
  refuse(config.policy.pinned_tokens < 0 || config.policy.window_tokens < 0,
         "a policy pins no negative number of tokens");
  refuse(config.recompute_token_ns < 0 || config.recompute_token_ns > kSecond,
         "recompute_token_ns is a time of a second at most, or 0");
  refuse(config.staging_slots < 1, "staging needs a slot");
  refuse(config.staging_slot_bytes < largest_page_bytes(config),
         "a staging slot must hold the largest page");
  if (config.logit_scale == 0)
    config.logit_scale = 1 / std::sqrt(static_cast<float>(config.head_dim));
  return config;
}

}  // namespace

Bytes largest_page_bytes(const RuntimeConfig& config) {
  return page_sizes(config).back();
}

KvCache::KvCache(Device& device, const RuntimeConfig& config, const KvCacheMemory& memory)
    : config_(checked(config)),
      device_(device),
      ledger_(device, config_.overdue_ns),
      h2d_(queue(device, QueueKind::h2d)),
      d2h_(queue(device, QueueKind::d2h)),
      compute_(queue(device, QueueKind::compute)),
      tables_memory_(memory.tables.data()),
      host_chunk_bytes_(memory.host_chunk_bytes),
      areas_(carve(device, config_, memory)),
      device_pool_(areas_.device_pages, page_sizes(config_),
                   device_slab_bytes(config_, areas_.device_pages.bytes), kDeviceLanes),
      staging_(areas_.staging, config_.staging_slots),
      list_tables_(areas_.list_tables),
      partials_(areas_.partials),
      tables_(areas_.step_tables),
      blocks_(kinds_of(config_)),
      content_(config_.content_eviction) {
  device_pool_.grow(areas_.device_pages.bytes);
  for (std::size_t i = 0; i < memory.hosts.size(); ++i) {
    const Address& pages = areas_.host_pages[i];
    // A layer's pages are read together: they have a lane.
    hosts_.push_back(
        {PagePool(pages, page_sizes(config_),
                  host_slab_bytes(config_, pages.bytes, host_chunk_bytes_), config_.layers),
         queue(device, QueueKind::host, memory.hosts[i].numa_node), memory.hosts[i].memory.data()});
  }
  set_up_pages();
  for (Shares& shares : targets_) shares[static_cast<std::size_t>(Action::resident_high)] = 1;
}

KvCache::Areas KvCache::carve(Device& device, const RuntimeConfig& config,
                              const KvCacheMemory& memory) {
  if (memory.hosts.empty()) throw Error("KV cache: memory of a host node is needed");
  Carver on_device(space(device, SpaceInfo::Kind::device, memory.device),
                   static_cast<Bytes>(memory.device.size()));
  Carver in_tables(space(device, SpaceInfo::Kind::host, memory.tables),
                   static_cast<Bytes>(memory.tables.size()));
  Areas areas;
  areas.staging =
      on_device.take(config.staging_slots * config.staging_slot_bytes, "the staging slots");
  const Tokens page_tokens = std::max(config.own_page_tokens, config.visual_page_tokens);
  areas.scratch =
      on_device.take(2 * page_tokens * config.kv_heads * config.head_dim * 2, "the rows of a page");
  areas.partials = on_device.take(config.partials_bytes, "partial results");
  areas.device_pages = on_device.rest("device pages");
  for (const HostArea& host : memory.hosts)
    areas.host_pages.push_back(Carver(space(device, SpaceInfo::Kind::host, host.memory),
                                      static_cast<Bytes>(host.memory.size()))
                                   .rest("host pages"));
  const Bytes slot_pages = config.staging_slot_bytes / page_sizes(config).front();
  areas.slot_tables =
      in_tables.take(4 * slot_pages * kPageTableEntryBytes, "the page tables of a staging slot");
  areas.list_tables = in_tables.take(
      static_cast<Bytes>(memory.tables.size()) / 2 - areas.slot_tables.bytes, "page tables");
  areas.step_tables = in_tables.rest("positions and queries");
  return areas;
}

// Pages of each kind, and a table of such pages one after another, as they lie in a staging slot.
void KvCache::set_up_pages() {
  Address table{areas_.slot_tables.space, areas_.slot_tables.offset, 0};
  for (const Strand strand : {Strand::own, Strand::visual})
    for (const bool low : {false, true}) {
      const bool own = strand == Strand::own;
      const auto& format = own ? config_.policy.text_low : config_.policy.visual_low;
      const PageShape shape{own ? config_.own_page_tokens : config_.visual_page_tokens,
                            config_.kv_heads, config_.head_dim,
                            low ? format.value_or(config_.policy.high) : config_.policy.high};
      const Bytes bytes = page_bytes(shape), pages = config_.staging_slot_bytes / bytes;
      table.bytes = pages * kPageTableEntryBytes;
      for (Bytes page = 0; page < pages; ++page)
        in_tables<std::int64_t>(table)[page] = page * bytes;
      page_kinds_[static_cast<std::size_t>(strand)][low ? 1 : 0] = {shape, bytes, table};
      table.offset += table.bytes;
    }
  const auto& high = page_kinds_[static_cast<std::size_t>(Strand::own)][0];
  page_kinds_[static_cast<std::size_t>(Strand::promoted)] = {high, high};
}

KvCache::Running* KvCache::find(SequenceId id) {
  return const_cast<Running*>(std::as_const(*this).find(id));
}

const KvCache::Running* KvCache::find(SequenceId id) const {
  if (id.index >= sequences_.size()) return nullptr;
  const Running& sequence = sequences_[id.index];
  return sequence.alive && sequence.generation == id.generation ? &sequence : nullptr;
}

Bytes KvCache::rows_bytes(Tokens tokens) const {
  return tokens * config_.kv_heads * config_.head_dim * 2;
}

Status KvCache::no_room(Status status) {
  counters_.busy += status == Status::busy;
  counters_.no_space += status == Status::no_space;
  return status;
}

std::optional<Begun> KvCache::begin(std::span<const Segment> prompt, Tokens max_reused_tokens) {
  const auto tokens = prompt_tokens(prompt);
  if (!tokens) return {};
  const SequenceId id = start(layout_of(prompt));
  Running& sequence = *find(id);
  sequence.promotion = promotion_of(prompt);
  sequence.prefixes = prefixes_of(prompt);
  return Begun{id, reuse(id, std::min(max_reused_tokens, *tokens - 1))};
}

// Nothing: a segment without tokens.
std::optional<Tokens> KvCache::prompt_tokens(std::span<const Segment> prompt) {
  Tokens tokens = 0;
  for (const Segment& segment : prompt) {
    if (segment.tokens < 1) return {};
    tokens += segment.tokens;
  }
  return tokens;
}

TokenLayout KvCache::layout_of(std::span<const Segment> prompt) const {
  const Selection selection = config_.policy.selection;
  return TokenLayout(prompt, config_.own_page_tokens, config_.visual_page_tokens,
                     config_.policy.visual_low.has_value() && selection != Selection::none);
}

SequenceId KvCache::start(TokenLayout layout) {
  if (free_sequences_.empty()) {
    free_sequences_.push_back(static_cast<std::uint32_t>(sequences_.size()));
    sequences_.emplace_back();
  }
  const std::uint32_t index = free_sequences_.back();
  free_sequences_.pop_back();
  const std::uint32_t generation = sequences_[index].generation + 1;
  sequences_[index] = {.generation = generation, .alive = true, .layout = std::move(layout)};
  sequences_[index].appended.assign(static_cast<std::size_t>(config_.layers), 0);
  return {index, generation};
}

const std::vector<BlockId>& KvCache::blocks_of(const Running& sequence, Strand strand) {
  if (strand == Strand::own) return sequence.own;
  return strand == Strand::visual ? sequence.visual : sequence.promoted;
}

std::vector<BlockId>& KvCache::blocks_of(Running& sequence, Strand strand) {
  return const_cast<std::vector<BlockId>&>(blocks_of(std::as_const(sequence), strand));
}

Status KvCache::release(SequenceId id) {
  Running* sequence = find(id);
  if (sequence == nullptr) return Status::rejected;
  for_each_block(*sequence, [&](BlockId block) { drop(block, id, !sequence->paused); });
  for (SequenceLists& lists : sequence->lists) forget_lists(lists);
  set_reserved(*sequence, 0);
  sequence->alive = false;
  free_sequences_.push_back(id.index);
  progress();
  return Status::ok;
}

void KvCache::drop(BlockId id, SequenceId owner, bool awake) {
  Block& block = blocks_[id];
  block.sequences.erase(std::find(block.sequences.begin(), block.sequences.end(), owner.index));
  if (awake) --block.awake_owners;
  if (block.sequences.empty()) {
    count_idle(block, +1);
    for (const LayerKind kind : kAllLayerKinds) {
      forget_action(block, kind);
      Part& part = block.parts[static_cast<std::size_t>(kind)];
      part.action = place_of(Action::resident_high, part.low);
    }
    block.idle_since = clock_;
    if (block.unit) content_.unpin(*block.unit);
  }
  let_go(id);
}

// One owner less.
void KvCache::let_go(BlockId id) {
  Block& block = blocks_[id];
  if (block.owners > 1) {
    --block.owners;
    return wish(id);
  }
  count_idle(block, -1);
  given_up_.clear();
  blocks_.remove(id, given_up_);
  give_back(given_up_);
}

// A sequence that is awake owns it too.
void KvCache::share(BlockId id, SequenceId owner) {
  Block& block = blocks_[id];
  count_idle(block, -1);
  if (block.unit && block.sequences.empty()) content_.pin(*block.unit);
  ++block.owners;
  ++block.awake_owners;
  block.sequences.push_back(owner.index);
}

void KvCache::give_back(std::span<const Address> slots) {
  for (const Address& slot : slots) pool_of(slot).give_back(slot, ledger_.fence());
}

// The transition of a block's pages in layers of a kind.
void KvCache::end_part(BlockId id, LayerKind kind, bool well) {
  count_idle(blocks_[id], -1);
  given_up_.clear();
  blocks_.end(id, kind, well, given_up_);
  give_back(given_up_);
  count_idle(blocks_[id], +1);
}

// Pages that nobody uses: before its users or pages change, and behind that.
void KvCache::count_idle(const Block& block, int sign) {
  if (!block.sequences.empty()) return;
  for (const PageSlots& page : block.pages) {
    if (page.now.bytes == 0) continue;
    const auto tier = static_cast<std::size_t>(tier_of(page.now));
    idle_bytes_[tier] += sign * page.now.bytes;
    if (block.is_tail) idle_tail_bytes_[tier] += sign * page.now.bytes;
  }
}

Status KvCache::pause(SequenceId id) {
  Running* sequence = find(id);
  if (sequence == nullptr || sequence->paused || !is_even(*sequence)) return Status::rejected;
  sequence->paused = true;
  for_each_block(*sequence, [&](BlockId block) {
    if (--blocks_[block].awake_owners == 0) wish(block);
  });
  progress();
  return Status::ok;
}

Status KvCache::resume(SequenceId id) {
  Running* sequence = find(id);
  if (sequence == nullptr || !sequence->paused) return Status::rejected;
  sequence->paused = false;
  for_each_block(*sequence, [&](BlockId block) {
    if (++blocks_[block].awake_owners == 1) wish(block);
  });
  progress();
  return Status::ok;
}

// Whether every layer has the same tokens: between two steps.
bool KvCache::is_even(const Running& sequence) const {
  return std::all_of(sequence.appended.begin(), sequence.appended.end(),
                     [&](Tokens tokens) { return tokens == sequence.appended.front(); });
}

Forked KvCache::fork(SequenceId id) {
  const Running* source = find(id);
  if (source == nullptr || source->paused || source->lost_from != kNeverLost || !is_even(*source))
    return {Status::rejected};
  progress();
  if (find(id)->lost_from != kNeverLost) return {Status::rejected};
  if (const Status status = bring_tail(id); status != Status::ok) return {no_room(status)};
  source = find(id);
  // What is shared or copied has to be known to be good.
  if (promotes(id) || is_appending(id) || is_suspected(*source)) return {no_room(Status::busy)};
  const SequenceId copy = start(*source->layout);
  const Status status = share_blocks(*find(id), copy);
  if (status == Status::ok) return {status, copy};
  [[maybe_unused]] const Status released = release(copy);
  return {no_room(status)};
}

// What is full is shared, what is still being filled is copied.
Status KvCache::share_blocks(const Running& source, SequenceId copy) {
  Running& target = *find(copy);
  target.appended = source.appended;
  target.promotion = source.promotion;
  target.prefixes = source.prefixes;
  target.kept_prefixes = source.kept_prefixes;
  for (const Strand strand : kAllStrands)
    for (const BlockId from : blocks_of(source, strand)) {
      if (is_complete(blocks_[from])) {
        share(from, copy);
        blocks_of(target, strand).push_back(from);
      } else if (const Status status = copy_block(from, copy, blocks_of(target, strand));
                 status != Status::ok) {
        return status;
      }
    }
  // Only now: whoever makes room for pages needs the list of operations as well.
  ops_.clear();
  for (const Strand strand : kAllStrands) {
    const std::vector<BlockId>& from = blocks_of(source, strand);
    for (std::size_t i = 0; i < from.size(); ++i) {
      const BlockId to = blocks_of(target, strand)[i];
      if (to == from[i]) continue;
      for (std::size_t layer = 0; layer < blocks_[to].pages.size(); ++layer)
        if (const Address& slot = blocks_[to].pages[layer].now; slot.bytes > 0)
          ops_.push_back(Copy{blocks_[from[i]].pages[layer].now, slot});
    }
  }
  if (!ops_.empty()) {
    if (!ledger_.has_room(compute_, 1, static_cast<int>(ops_.size()))) return Status::busy;
    const Submitted submitted = ledger_.submit(compute_, ops_, {});
    if (submitted.status != Status::ok) return submitted.status;
    for (const Strand strand : {Strand::own, Strand::visual})
      for (const BlockId block : blocks_of(target, strand))
        if (!is_complete(blocks_[block])) blocks_[block].last_write = submitted.ticket;
    Errand& errand = add_errand(Errand::Kind::append, submitted.ticket);
    errand.given = {{copy, 0, page_begin(target, target.appended.front())}};
    errand.step = step_;
  }
  settle_own(target, target.appended.front());
  return Status::ok;
}

bool KvCache::is_complete(const Block& block) const {
  for (const LayerKind kind : kAllLayerKinds)
    if (block.parts[static_cast<std::size_t>(kind)].closed_layers < blocks_.layers_of(kind))
      return false;
  return true;
}

// A block that is still being filled, for another sequence: page by page.
Status KvCache::copy_block(BlockId from, SequenceId owner, std::vector<BlockId>& to) {
  const BlockId id = blocks_.add(blocks_[from].strand, blocks_[from].tokens);
  to.push_back(id);
  const Block& source = blocks_[from];
  Block& block = blocks_[id];
  block.sequences.push_back(owner.index);
  block.stays_high = source.stays_high;
  block.name = source.name;
  block.hidden = source.hidden;
  for (const LayerKind kind : kAllLayerKinds) {
    Part& part = block.parts[static_cast<std::size_t>(kind)];
    const Part& source_part = source.parts[static_cast<std::size_t>(kind)];
    if (source_part.state != PartState::resident) return await_arrival(source, kind);
    part.low = source_part.low;
    part.closed_layers = source_part.closed_layers;
    if (block.strand == Strand::visual) choose_action(block, kind);
  }
  for (int layer = 0; layer < config_.layers; ++layer) {
    const Address& page = source.pages[static_cast<std::size_t>(layer)].now;
    if (page.bytes == 0) continue;
    Address& slot = block.pages[static_cast<std::size_t>(layer)].now;
    if (const Status status = take_device(page.bytes, *find(owner), slot); status != Status::ok)
      return status;
    ++block.parts[static_cast<std::size_t>(blocks_.kind(layer))].begun_layers;
  }
  return Status::ok;
}

Truncated KvCache::truncate(SequenceId id, Tokens tokens) {
  Running* sequence = find(id);
  if (sequence == nullptr || sequence->paused || tokens < 0) return {Status::rejected};
  const Tokens longest = *std::max_element(sequence->appended.begin(), sequence->appended.end());
  Tokens kept = std::min(tokens, longest);
  while (const auto less = cut_before(*sequence, kept)) kept = *less;

  const auto own = static_cast<std::size_t>(
      divide_up(sequence->layout->own_tokens(kept), config_.own_page_tokens));
  const auto visual = static_cast<std::size_t>(sequence->layout->visual_blocks(kept));
  for (const Strand strand : {Strand::own, Strand::visual}) {
    std::vector<BlockId>& ids = blocks_of(*sequence, strand);
    while (ids.size() > (strand == Strand::own ? own : visual)) {
      drop(ids.back(), id, true);
      ids.pop_back();
    }
  }
  if (sequence->tail && divide_up(sequence->layout->own_tokens(kept), config_.own_page_tokens) <=
                            static_cast<Tokens>(sequence->own.size())) {
    drop(*sequence->tail, id, true);
    sequence->tail.reset();
  }
  for (Tokens& appended : sequence->appended) appended = std::min(appended, kept);
  // The last block of each strand is open again where something of it went. What is still to be
  // copied is behind the last block.
  const Tokens own_tokens = sequence->layout->own_tokens(kept);
  const bool verifies = !is_appending(id);  // else pages may have no checksum yet
  if (own_tokens % config_.own_page_tokens != 0 &&
      own_tokens < static_cast<Tokens>(sequence->own.size()) * config_.own_page_tokens)
    reopen(sequence->own, verifies);
  if (ends_in_block(*sequence, kept)) reopen(sequence->visual, verifies);
  sequence->settled_own = std::min<Tokens>(
      sequence->settled_own, sequence->layout->own_tokens(kept) / config_.own_page_tokens);
  while (sequence->kept_prefixes > 0 && sequence->prefixes[sequence->kept_prefixes - 1].end > kept)
    --sequence->kept_prefixes;
  ++sequence->epoch;
  if (sequence->promotion && kept < sequence->promotion->choice.prompt_tokens())
    reset_promotion(id);
  for (SequenceLists& lists : sequence->lists) lists.stale = true;
  set_reserved(*sequence, 0);
  if (kept <= sequence->lost_from) sequence->lost_from = kNeverLost;
  progress();
  return {Status::ok, kept};
}

// The last of a strand's blocks. Its checksums go with that: what they have to say is heard before.
void KvCache::reopen(std::vector<BlockId>& blocks, bool verifies) {
  if (blocks.empty()) return;
  Block& block = blocks_[blocks.back()];
  if (verifies && is_complete(block))
    for (int layer = 0; layer < config_.layers; ++layer)
      if (is_sampled()) suspects_.push_back({blocks.back(), layer, true});
  for (Part& part : block.parts) part.closed_layers = 0, part.incompressible = false;
}

bool KvCache::is_appending(SequenceId id) const {
  return std::any_of(errands_.begin(), errands_.end(), [&](const Errand& errand) {
    return std::any_of(errand.given.begin(), errand.given.end(),
                       [&](const Given& given) { return given.sequence == id; });
  });
}

// Whether `tokens` tokens end within a visual block.
bool KvCache::ends_in_block(const Running& sequence, Tokens tokens) const {
  const Tokens blocks = sequence.layout->visual_blocks(tokens);
  return blocks > 0 && sequence.layout->visual_first_token(blocks - 1) +
                               sequence.layout->visual_tokens(blocks - 1) >
                           tokens;
}

// Where a cut must be moved to because a block cannot be opened there; nothing where it can.
std::optional<Tokens> KvCache::cut_before(const Running& sequence, Tokens tokens) const {
  const auto can_open = [&](BlockId id) {
    const Block& block = *blocks_.find(id);
    return block.owners == 1 && std::all_of(block.parts.begin(), block.parts.end(), [](auto& part) {
             return part.state == PartState::resident && !part.low;
           });
  };
  const Tokens own = sequence.layout->own_tokens(tokens);
  const auto block = static_cast<std::size_t>(own / config_.own_page_tokens);
  if (own % config_.own_page_tokens != 0 && block < sequence.own.size() &&
      !can_open(sequence.own[block]))
    return sequence.layout->token_of_own(own / config_.own_page_tokens * config_.own_page_tokens);
  if (!ends_in_block(sequence, tokens)) return {};
  const auto last = static_cast<std::size_t>(sequence.layout->visual_blocks(tokens) - 1);
  if (last < sequence.visual.size() && !can_open(sequence.visual[last]))
    return sequence.layout->visual_first_token(static_cast<Tokens>(last));
  return {};
}

Tokens KvCache::tokens(SequenceId id, int layer) const {
  const Running* sequence = find(id);
  if (sequence == nullptr || layer < 0 || layer >= config_.layers) return 0;
  return std::min(sequence->appended[static_cast<std::size_t>(layer)], sequence->lost_from);
}

void KvCache::grow_host(std::size_t host, Bytes bytes) {
  hosts_[host].pool.grow(bytes);
}

std::pair<Tokens, Tokens> KvCache::held_tokens() const {
  std::pair<Tokens, Tokens> held;
  for (const Running& sequence : sequences_) {
    if (!sequence.alive || sequence.paused) continue;
    const Tokens tokens = sequence.appended.front(),
                 visual = sequence.layout->visual_tokens_of(tokens);
    held.first += tokens - visual;
    held.second += visual;
  }
  return held;
}

int KvCache::awake_sequences() const {
  return static_cast<int>(std::count_if(sequences_.begin(), sequences_.end(), [](auto& sequence) {
    return sequence.alive && !sequence.paused;
  }));
}

std::string KvCache::describe() const {
  const auto line = [](std::string_view what, const PagePool& pool) {
    return fmt::format("{} pages: {} of {} bytes, {} retired, {:.0f} % fragmented\n", what,
                       pool.used_bytes(), pool.capacity_bytes(), pool.retired_bytes(),
                       100 * pool.slots().statistics().fragmentation());
  };
  std::string text = line("device", device_pool_);
  for (const Host& host : hosts_) text += line("host", host.pool);
  text += fmt::format("kept content: {} segments, {} bytes, {} of them in use, {} disk jobs\n",
                      content_.size(), content_.held_bytes(),
                      content_.held_bytes() - content_.evictable_bytes(),
                      disk_jobs_.size() + loads_.size());
  text += fmt::format("blocks: {}, in flight: {}, wishes: {}, reserved: {} bytes\n",
                      blocks_.blocks(), errands_.size(), wishes_.size(), reserved_bytes_);
  for (std::size_t i = 0; i < sequences_.size(); ++i) {
    const Running& sequence = sequences_[i];
    if (!sequence.alive) continue;
    text += fmt::format(
        "sequence {}.{}: {} tokens{}{}, {} own, {} visual and {} promoted blocks:", i,
        sequence.generation, sequence.appended.front(), sequence.paused ? ", paused" : "",
        sequence.lost_from == kNeverLost ? "" : fmt::format(", lost from {}", sequence.lost_from),
        sequence.own.size(), sequence.visual.size(), sequence.promoted.size());
    std::array<std::array<int, 2>, kPartStates> states{};
    for (const Strand strand : kAllStrands)
      for (const BlockId id : blocks_of(sequence, strand))
        for (const LayerKind kind : kAllLayerKinds) {
          const Part& part = blocks_.find(id)->parts[static_cast<std::size_t>(kind)];
          if (part.begun_layers > 0)
            ++states[static_cast<std::size_t>(part.state)][part.low ? 1 : 0];
        }
    for (std::size_t state = 0; state < states.size(); ++state)
      for (const bool low : {false, true})
        if (const int count = states[state][low ? 1 : 0]; count > 0)
          text += fmt::format(" {} {}{}", count, name(static_cast<PartState>(state)),
                              low ? " compressed" : "");
    text += '\n';
  }
  return text;
}

}  // namespace modalkv
