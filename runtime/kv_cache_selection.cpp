// Which visual tokens stay in high precision: those that the prompt's text attends to most. Until
// that is known they stay on the device in 16 bits; what is chosen is copied to pages of the
// sequence's own, and hidden where everybody's copy is compressed.
#include <algorithm>

#include "runtime/kv_cache.hpp"

namespace modalkv {

std::optional<KvCache::Promotion> KvCache::promotion_of(std::span<const Segment> prompt) const {
  auto choice = TokenChoice::of(config_.policy, prompt, config_.layers,
                                blocks_.layers_of(LayerKind::planned));
  if (!choice) return {};
  return Promotion{.choice = std::move(*choice)};
}

std::span<const Tokens> KvCache::promoted(SequenceId id, int layer) const {
  const Running* sequence = find(id);
  if (sequence == nullptr || layer < 0 || layer >= config_.layers || !sequence->promotion ||
      sequence->promotion->state != Promotion::State::kept)
    return {};
  return sequence->promotion->choice.tokens(layer);
}

// Whether a sequence may still promote tokens of a block: then it is not compressed.
bool KvCache::is_candidate(const Block& block, LayerKind kind) const {
  return kind == LayerKind::planned && block.strand == Strand::visual &&
         std::any_of(block.sequences.begin(), block.sequences.end(), [&](std::uint32_t i) {
           const auto& promotion = sequences_[i].promotion;
           return promotion && promotion->state < Promotion::State::kept;
         });
}

// Whether the device has room for an append in 16 bits, in all layers.
bool KvCache::candidates_fit(std::span<const AppendRequest> batch, int layer) const {
  const SlabAllocator& slots = device_pool_.slots();
  Bytes bytes = reserved_bytes_ + reserve_bytes() + 2 * slots.slab_bytes();
  for (const AppendRequest& request : batch) {
    const Running& sequence = *find(request.sequence);
    const Tokens begin = sequence.appended[static_cast<std::size_t>(layer)];
    bytes += room_for(*sequence.layout, begin, begin + request.tokens, false);
  }
  return bytes <= slots.free_bytes() + idle_bytes(Tier::device);
}

// What sequences with an open choice come to see in this step, and room for scores of that.
void KvCache::plan_scores(std::span<const AttendRequest> batch, int layer, int ahead,
                          bool partial) {
  probings_.clear();
  if (blocks_.kind(layer) != LayerKind::planned) return;
  int scores = 0;
  for (std::size_t r = 0; r < batch.size(); ++r) {
    const Running& sequence = *find(batch[r].sequence);
    const auto& promotion = sequence.promotion;
    if (!promotion || promotion->state != Promotion::State::open ||
        promotion->choice.is_closed(layer))
      continue;
    // An engine that keeps some KV itself does not say which rows these are.
    const Tokens end = sequence.appended[static_cast<std::size_t>(layer)];
    Probing probing{
        .sequence = batch[r].sequence,
        .epoch = promotion->epoch,
        .request = r,
        .rows = promotion->choice.probes(layer, partial ? end : end - batch[r].tokens, end),
        .ends_prompt = end >= promotion->choice.prompt_tokens()};
    if (probing.rows.count() == 0 && !probing.ends_prompt) continue;
    if (!reserve_scores(probing)) forget_scores(probing);
    scores += static_cast<int>(probing.parts.size());
    probings_.push_back(std::move(probing));
  }
  if (scores > 0 && !queues_have_room(batch, ahead, scores))
    for (Probing& probing : probings_) forget_scores(probing);
}

// For the lists of 16-bit visual pages on the device.
bool KvCache::reserve_scores(Probing& probing) {
  for (std::size_t p = 0; p < parts_.size() && probing.rows.count() > 0; ++p) {
    const AttendPart& part = parts_[p];
    const KvList& list = *part.list;
    if (part.request != static_cast<int>(probing.request) || list.strand != Strand::visual ||
        list.low || list.place != PagePlace::resident)
      continue;
    const auto on_device = partials_.take(part.tokens * 4), on_host = tables_.take(part.tokens * 4);
    if (!on_device || !on_host) return false;
    ScoredPart& scored = probing.parts.emplace_back();
    scored.part = p;
    scored.on_device = *on_device;
    scored.on_host = *on_host;
    for (Tokens page = 0; page < part.pages; ++page)
      scored.blocks.push_back(list.blocks[static_cast<std::size_t>(page)].index);
  }
  return true;
}

// The step goes on without them.
void KvCache::forget_scores(Probing& probing) {
  if (probing.rows.count() > 0) ++counters_.unscored_chunks;
  probing.rows.end = probing.rows.begin;
  probing.parts.clear();
}

// Behind the step's outputs. Returns when the engine's queries are not read any more.
Ticket KvCache::submit_scores(std::span<const AttendRequest> batch, int layer, Ticket merged) {
  Ticket read = merged;
  ops_.clear();
  for (const Probing& probing : probings_)
    for (const ScoredPart& scored : probing.parts)
      ops_.push_back(score_of(scored, probing, batch[probing.request], layer));
  if (!ops_.empty()) {
    Submitted submitted = ledger_.submit(compute_, ops_, std::span(&merged, 1));
    if (submitted.status == Status::ok) {
      read = submitted.ticket;
      add_group(submitted.ticket, layer, Errand::Kind::score);
      ops_.clear();
      for (const Probing& probing : probings_)
        for (const ScoredPart& scored : probing.parts)
          ops_.push_back(Copy{scored.on_device, scored.on_host});
      submitted = ledger_.submit(d2h_, ops_, std::span(&submitted.ticket, 1));
    }
    if (submitted.status == Status::ok) {
      add_group(submitted.ticket, layer, Errand::Kind::bring_scores);
    } else {
      for (Probing& probing : probings_) forget_scores(probing);
    }
  }
  steps_.back().fence = ledger_.fence();
  steps_.back().probings = std::move(probings_);
  return read;
}

Score KvCache::score_of(const ScoredPart& scored, const Probing& probing,
                        const AttendRequest& request, int layer) const {
  const AttendPart& part = parts_[scored.part];
  const RequestRoom& room = request_rooms_[probing.request];
  const Address& table = part.list->layers[static_cast<std::size_t>(layer)].table;
  const Tokens first =
      probing.rows.begin -
      (find(request.sequence)->appended[static_cast<std::size_t>(layer)] - request.tokens);
  // Of the chunk's rows, `bytes` each.
  const auto rows = [&](const Address& all, Bytes begin, Bytes bytes) -> Address {
    return {all.space, all.offset + begin + first * bytes, probing.rows.count() * bytes};
  };
  Score op;
  op.queries = rows(request.queries, 0, Bytes{config_.query_heads} * config_.head_dim * 2);
  op.pages = device_pool_.where();
  op.page_table = {table.space, table.offset, part.pages * kPageTableEntryBytes};
  const Bytes merged = room.parts > 1 ? room.parts * room.partial_bytes : 0;
  op.partials = rows(room.partials, merged, partial_bytes(config_.query_heads, config_.head_dim));
  op.scores = scored.on_device;
  op.shape = page_kind(Strand::visual, false).shape;
  op.scratch = {areas_.scratch.space, areas_.scratch.offset, score_scratch_bytes(op.shape)};
  op.tokens = part.tokens;
  op.query_heads = config_.query_heads;
  op.query_tokens = static_cast<std::int32_t>(probing.rows.count());
  op.input = config_.input;
  op.logit_scale = config_.logit_scale;
  op.hidden = hidden_of(part);
  // Without a window, rows behind the last visual token see all of them.
  if (config_.window > 0) {
    op.query_positions = rows(room.query_positions, 0, 4);
    op.token_positions = part.positions;
    op.window = config_.window;
  }
  return op;
}

// As soon as they are on the host, whose memory for them is soon used again.
void KvCache::read_scores(Step& step) const {
  if (step.fence <= recycled_) return;
  for (Probing& probing : step.probings)
    for (ScoredPart& scored : probing.parts) {
      const auto* scores = in_tables<float>(scored.on_host);
      scored.scores.assign(scores, scores + scored.on_host.bytes / 4);
    }
}

// A step has ended: what it says of choices that are open counts where it has ended well.
void KvCache::end_probings(const Step& step) {
  if (step.status != Status::ok) return;
  for (const Probing& probing : step.probings) {
    Running* sequence = find(probing.sequence);
    if (sequence == nullptr || !sequence->promotion) continue;
    Promotion& promotion = *sequence->promotion;
    if (promotion.epoch != probing.epoch || promotion.state != Promotion::State::open) continue;
    add_scores(probing, step.layer, *sequence, promotion.choice);
    if (!probing.ends_prompt || !promotion.choice.close(step.layer)) continue;
    if (promotion.choice.is_informed()) {
      promotion.state = Promotion::State::chosen;
      promotions_.push_back(probing.sequence);
    } else {
      ++counters_.unselected_for_probes;
      give_up_promotion(probing.sequence);
    }
  }
}

void KvCache::add_scores(const Probing& probing, int layer, const Running& sequence,
                         TokenChoice& choice) {
  const ProbeRows& rows = probing.rows;
  // Attended to twice, they score once.
  if (rows.count() == 0 || choice.probes(layer, rows.begin, rows.end).count() != rows.count())
    return;
  if (std::any_of(probing.parts.begin(), probing.parts.end(),
                  [](const ScoredPart& scored) { return scored.scores.empty(); })) {
    ++counters_.unscored_chunks;
    return;
  }
  const TokenLayout& layout = *sequence.layout;
  for (const ScoredPart& scored : probing.parts)
    for (std::size_t page = 0; page < scored.blocks.size(); ++page) {
      const Tokens block = scored.blocks[page], tokens = layout.visual_tokens(block);
      const auto at = page * static_cast<std::size_t>(config_.visual_page_tokens);
      choice.add(layer, rows, layout.visual_tokens_of(layout.visual_first_token(block)),
                 std::span(scored.scores).subspan(at, static_cast<std::size_t>(tokens)));
      counters_.scored_tokens += tokens;
    }
  choice.count(layer, rows);
}

// Goes on with what is chosen.
void KvCache::promote() {
  std::erase_if(promotions_, [&](SequenceId id) { return promote(id) != Status::busy; });
}

Status KvCache::promote(SequenceId id) {
  Running* sequence = find(id);
  if (sequence == nullptr || !sequence->promotion) return Status::ok;
  Promotion& promotion = *sequence->promotion;
  Status status = Status::ok;
  if (promotion.state == Promotion::State::chosen) {
    status = take_promoted(id);
    if (status == Status::ok) promotion.state = Promotion::State::copying;
  }
  if (status == Status::ok && promotion.state == Promotion::State::copying)
    status = copy_promoted(id);
  if (status != Status::ok && status != Status::busy) {
    promotion.outcome = status;
    if (promotion.groups == 0) settle_promotion(id);
  }
  return status;
}

// Of what is still in 16 bits on the device, and pages for it.
Status KvCache::take_promoted(SequenceId id) {
  Running& sequence = *find(id);
  TokenChoice& choice = sequence.promotion->choice;
  const SlabAllocator& slots = device_pool_.slots();
  const Bytes page_bytes = page_kind(Strand::promoted, false).bytes;
  const Bytes bytes = promoted_pages(sequence) * room_of(page_bytes) + reserved_bytes_ +
                      reserve_bytes() + slots.slab_bytes();
  if (slots.free_bytes() < bytes) {
    const Status status = make_room(bytes);
    if (status == Status::busy || reserved_bytes_ > 0) return status;
  }
  choice.choose(config_.policy, eligible(sequence));
  for (Tokens left = choice.chosen(); left > 0; left -= config_.own_page_tokens) {
    const BlockId block = blocks_.add(Strand::promoted, std::min(left, config_.own_page_tokens));
    sequence.promoted.push_back(block);
    blocks_[block].sequences.push_back(id.index);
    if (sequence.paused) --blocks_[block].awake_owners;
    if (!take_promoted_page(block)) return Status::no_space;
  }
  return sequence.promoted.empty() ? Status::no_space : Status::ok;
}

// A flag for each visual token: neither kept elsewhere nor out of reach.
std::vector<bool> KvCache::eligible(const Running& sequence) const {
  std::vector<bool> flags;
  for (const BlockId id : sequence.visual) {
    const Block& block = *blocks_.find(id);
    const Part& part = block.parts[static_cast<std::size_t>(LayerKind::planned)];
    const bool in_reach =
        may_be_low(block, LayerKind::planned) && !part.low && on_device(part.state);
    for (Tokens token = 0; token < block.tokens; ++token) {
      const auto word = static_cast<std::size_t>(token / 64);
      const bool hidden = !block.hidden.empty() && (block.hidden[word] >> token % 64 & 1) != 0;
      flags.push_back(in_reach && !hidden);
    }
  }
  return flags;
}

// In all layers where tokens are chosen. In the others it has nothing, and is whole.
bool KvCache::take_promoted_page(BlockId id) {
  Block& block = blocks_[id];
  block.stays_high = true;
  for (const LayerKind kind : kAllLayerKinds)
    block.parts[static_cast<std::size_t>(kind)].closed_layers = blocks_.layers_of(kind);
  for (int layer = 0; layer < config_.layers; ++layer) {
    if (blocks_.kind(layer) != LayerKind::planned) continue;
    const auto slot = device_pool_.take(page_kind(Strand::promoted, false).bytes);
    if (!slot) return false;
    block.pages[static_cast<std::size_t>(layer)].now = *slot;
    ++block.parts[static_cast<std::size_t>(LayerKind::planned)].begun_layers;
  }
  return true;
}

// As much as the queue takes now, in groups of some hundred operations.
Status KvCache::copy_promoted(SequenceId id) {
  constexpr std::size_t kGroupOps = 256;
  Running& sequence = *find(id);
  Promotion& promotion = *sequence.promotion;
  while (promotion.next_layer < config_.layers && promotion.outcome == Status::ok) {
    int layer = promotion.next_layer;
    std::size_t token = promotion.next_token;
    ops_.clear();
    while (layer < config_.layers && ops_.size() < kGroupOps)
      if (!add_promoted(sequence, layer, token)) return Status::no_space;
    if (!ops_.empty()) {
      if (!ledger_.has_room(compute_, 1, static_cast<int>(ops_.size()))) return Status::busy;
      const Submitted submitted = ledger_.submit(compute_, ops_, {});
      if (submitted.status != Status::ok) return submitted.status;
      add_errand(Errand::Kind::promotion, submitted.ticket).given = {{id, promotion.epoch, 0}};
      ++promotion.groups;
      for (const BlockId block : sequence.promoted) blocks_[block].last_write = submitted.ticket;
    }
    promotion.next_layer = layer;
    promotion.next_token = token;
  }
  return Status::ok;
}

// Operations that copy the chosen tokens of one visual block in a layer, from the next one on.
// False: the block is out of reach by now.
bool KvCache::add_promoted(const Running& sequence, int& layer, std::size_t& token) {
  const auto tokens = sequence.promotion->choice.tokens(layer);
  if (token == tokens.size()) {
    ++layer;
    token = 0;
    return true;
  }
  Tokens begin = 0;
  const Block* source = nullptr;
  sequence.layout->for_each_piece(tokens[token], tokens[token] + 1, [&](const LayoutPiece& piece) {
    if (piece.strand != Strand::visual) return;
    begin = piece.token - piece.at;
    source = blocks_.find(sequence.visual[static_cast<std::size_t>(piece.block)]);
  });
  const Part& part = source->parts[static_cast<std::size_t>(LayerKind::planned)];
  if (part.low || !on_device(part.state)) return false;
  const auto [keys, values] = scratch_rows(source->tokens);
  ops_.push_back(Decode{source->pages[static_cast<std::size_t>(layer)].now, keys, values,
                        page_kind(Strand::visual, false).shape, source->tokens, config_.input});
  const PageShape& shape = page_kind(Strand::promoted, false).shape;
  while (token < tokens.size() && tokens[token] < begin + source->tokens) {
    const auto at = static_cast<Tokens>(token) % shape.tokens;
    const BlockId id = sequence.promoted[token / static_cast<std::size_t>(shape.tokens)];
    const Block& target = *blocks_.find(id);
    const Address& page = target.pages[static_cast<std::size_t>(layer)].now;
    const Tokens first = tokens[token];
    Tokens run = 1;
    for (++token; token < tokens.size() && tokens[token] == first + run &&
                  first + run < begin + source->tokens && at + run < shape.tokens;
         ++token)
      ++run;
    const auto rows = [&](const Address& all) -> Address {
      return {all.space, all.offset + rows_bytes(first - begin), rows_bytes(run)};
    };
    ops_.push_back(Append{rows(keys), rows(values), page, shape, at, run, config_.input});
    if (at + run == target.tokens) add_close(page, shape, target.tokens, identity(id, layer));
  }
  return true;
}

void KvCache::end_promotion(const Errand& errand, Status status) {
  const Given& given = errand.given.front();
  Running* sequence = find(given.sequence);
  if (sequence == nullptr || !sequence->promotion) return;
  Promotion& promotion = *sequence->promotion;
  if (promotion.epoch != given.epoch || promotion.state != Promotion::State::copying) return;
  --promotion.groups;
  if (promotion.outcome == Status::ok) promotion.outcome = status;
  const bool all = promotion.next_layer == config_.layers || promotion.outcome != Status::ok;
  if (all && promotion.groups == 0) settle_promotion(given.sequence);
}

// All copies have ended: they count from now on, or never.
void KvCache::settle_promotion(SequenceId id) {
  Running& sequence = *find(id);
  Promotion& promotion = *sequence.promotion;
  if (promotion.outcome != Status::ok) {
    ++(promotion.outcome == Status::no_space ? counters_.unselected_for_memory
                                             : counters_.unselected_for_faults);
    return give_up_promotion(id);
  }
  promotion.state = Promotion::State::kept;
  counters_.promoted_tokens += promotion.choice.chosen() * blocks_.layers_of(LayerKind::planned);
  sequence.lists[static_cast<std::size_t>(LayerKind::planned)].stale = true;
  for (const BlockId block : sequence.promoted) {
    choose_action(blocks_[block], LayerKind::planned);
    wish(block);
  }
  for (const BlockId block : sequence.visual) wish(block);
}

void KvCache::give_up_promotion(SequenceId id) {
  drop_promoted(id);
  Running& sequence = *find(id);
  sequence.promotion->state = Promotion::State::given_up;
  for (const BlockId block : sequence.visual) wish(block);
}

void KvCache::drop_promoted(SequenceId id) {
  Running& sequence = *find(id);
  sequence.lists[static_cast<std::size_t>(LayerKind::planned)].stale = true;
  for (const BlockId block : sequence.promoted) drop(block, id, !sequence.paused);
  sequence.promoted.clear();
}

// The prompt has been cut.
void KvCache::reset_promotion(SequenceId id) {
  drop_promoted(id);
  Promotion& promotion = *find(id)->promotion;
  promotion.choice.begin_anew();
  promotion = {.choice = std::move(promotion.choice), .epoch = promotion.epoch + 1};
}

// Whether something of a sequence's promotion is in flight, or about to be.
bool KvCache::promotes(SequenceId id) const {
  const auto& promotion = find(id)->promotion;
  if (!promotion) return false;
  if (promotion->state == Promotion::State::chosen || promotion->state == Promotion::State::copying)
    return true;
  return std::any_of(steps_.begin(), steps_.end(), [&](const Step& step) {
    return std::any_of(step.probings.begin(), step.probings.end(), [&](const Probing& probing) {
      return probing.sequence == id && probing.epoch == promotion->epoch;
    });
  });
}

// Of all layers, that it has or may come to have.
Tokens KvCache::promoted_pages(const Running& sequence) const {
  auto pages = static_cast<Tokens>(sequence.promoted.size());
  if (sequence.promotion && sequence.promotion->state < Promotion::State::copying)
    pages = divide_up(sequence.promotion->choice.most(), config_.own_page_tokens);
  return pages * blocks_.layers_of(LayerKind::planned);
}

}  // namespace modalkv
