// What comes of everything that was submitted: events, transitions that end, what is lost.
#include <algorithm>

#include "runtime/kv_cache.hpp"

namespace modalkv {

std::optional<RuntimeEvent> KvCache::poll(Nanos timeout_ns) {
  progress();
  if (events_.empty() && await(timeout_ns)) progress();
  if (events_.empty()) return {};
  const RuntimeEvent event = events_.front();
  events_.pop_front();
  return event;
}

Status KvCache::wait(std::uint64_t step, Nanos timeout_ns) {
  const Nanos until_ns = device_.now() + timeout_ns;
  while (true) {
    progress();
    const auto found = std::find_if(events_.begin(), events_.end(), [&](const RuntimeEvent& event) {
      return event.kind == RuntimeEvent::Kind::attended && event.step == step;
    });
    if (found != events_.end()) {
      const Status status = found->status;
      events_.erase(found);
      return status;
    }
    const auto completion = ledger_.next(until_ns - device_.now());
    if (!completion) return Status::timeout;
    collect(*completion);
  }
}

bool KvCache::settled() const {
  return ledger_.idle() && disk_jobs_.empty() && loads_.empty() && suspects_.empty() &&
         events_.empty() && promotions_.empty() && (wishes_.empty() || stuck_);
}

// What a group in flight is for, in the order of submission.
KvCache::Errand& KvCache::add_errand(Errand::Kind kind, Ticket ticket) {
  Errand& errand = errands_.emplace_back();
  errand.kind = kind;
  errand.ticket = ticket;
  return errand;
}

// All that can be done without waiting.
void KvCache::progress() {
  while (const auto completion = ledger_.next(0)) collect(*completion);
  while (end_disk_jobs(0)) {
  }
  device_pool_.recycle(ledger_.passed());
  for (Host& host : hosts_) host.pool.recycle(ledger_.passed());
  list_tables_.recycle(ledger_.passed());
  recycled_ = ledger_.passed();
  partials_.recycle(recycled_);
  tables_.recycle(recycled_);
  start_loads();
  verify_suspects();
  promote();
  pump();
}

void KvCache::collect(const Completion& completion) {
  const auto found = std::find_if(errands_.begin(), errands_.end(), [&](const Errand& errand) {
    return errand.ticket == completion.ticket;
  });
  if (found == errands_.end()) return;
  const Errand errand = *found;
  errands_.erase(found);
  const Status status = completion.status;
  if (status != Status::ok) ++counters_.failed_groups;
  if (status == Status::timeout) ++counters_.timeouts;
  staging_.ended(errand.ticket);
  switch (errand.kind) {
    case Errand::Kind::append:
      if (status != Status::ok) {
        end_append(errand, status);
        // A tail, with which others are not to begin.
        if (status == Status::checksum) lose_corrupt({errand.block}, 0);
      } else {
        for (const Given& given : errand.given) keep_content(given.sequence);
      }
      break;
    case Errand::Kind::suspect:
      if (status == Status::checksum) lose_corrupt({errand.block}, errand.layer);
      break;
    case Errand::Kind::tail:
      if (status == Status::checksum) {
        lose_corrupt({errand.block}, 0);
      } else if (status != Status::ok) {
        lose({errand.block}, 0, status);
      }
      break;
    case Errand::Kind::transition:
      end_transition(errand, status);
      break;
    case Errand::Kind::step:
      if (status != Status::ok) staging_.failed();
      for (Step& step : steps_)
        if (step.id == errand.step) {
          --step.groups;
          // The cause, not what came of it.
          if (status != Status::ok &&
              (step.status == Status::ok || step.status == Status::cancelled))
            step.status = status;
          if (status == Status::checksum) find_corruption(errand.layer, step);
        }
      break;
    case Errand::Kind::score:
    case Errand::Kind::bring_scores:
      for (Step& step : steps_)
        if (step.id == errand.step) {
          --step.groups;
          if (errand.kind == Errand::Kind::bring_scores && status == Status::ok) read_scores(step);
        }
      break;
    case Errand::Kind::promotion:
      end_promotion(errand, status);
      break;
    case Errand::Kind::prefetch:
      // A step that reads what it did not bring is cancelled; the next one brings its own.
      if (status != Status::ok) {
        staging_.failed();
        drop_prefetched();
      }
      break;
  }
  end_steps();
}

// An append that failed. What fails half-way may have spoiled the whole of its pages: those of its
// first tokens hold older ones too, also where its own have been truncated since.
void KvCache::end_append(const Errand& errand, Status status) {
  // What would wait for it would be cancelled, and tried again. Its pages are not closed.
  blocks_.for_each([&](BlockId, Block& block) {
    if (block.last_write != errand.ticket) return;
    block.last_write = {};
    for (Part& part : block.parts) part.closed_layers = 0;
  });
  const bool spoils = status != Status::rejected && status != Status::cancelled;
  for (const Given& given : errand.given) {
    spoil_steps(given.sequence, errand.step, status);
    const Running* sequence = find(given.sequence);
    if (sequence == nullptr) continue;
    if (sequence->epoch == given.epoch) open_from(*sequence, given.first_token);
    if (spoils) {
      lose(given.sequence, page_begin(*sequence, given.first_token), errand.layer, status);
    } else if (sequence->epoch == given.epoch) {
      lose(given.sequence, given.first_token, errand.layer, status);
    }
  }
}

// Blocks that have tokens from `first_token` on are not whole, though later layers may have closed
// their pages. What others have too was whole before.
void KvCache::open_from(const Running& sequence, Tokens first_token) {
  const TokenLayout& layout = *sequence.layout;
  const auto open = [&](const std::vector<BlockId>& blocks, Tokens begin) {
    for (auto at = static_cast<std::size_t>(begin); at < blocks.size(); ++at)
      if (Block& block = blocks_[blocks[at]]; block.owners == 1)
        for (Part& part : block.parts) part.closed_layers = 0;
  };
  open(sequence.own, layout.own_tokens(first_token) / config_.own_page_tokens);
  open(sequence.visual,
       layout.visual_blocks(first_token) - (ends_in_block(sequence, first_token) ? 1 : 0));
}

// Steps in flight that may have read what is lost, also of a sequence that is gone by now.
void KvCache::spoil_steps(SequenceId id, std::uint64_t after_step, Status status) {
  for (Step& step : steps_)
    if (step.id > after_step && step.status == Status::ok &&
        std::find(step.sequences.begin(), step.sequences.end(), id) != step.sequences.end())
      step.status = status;
}

void KvCache::end_transition(const Errand& errand, Status status) {
  Block* block = blocks_.find(errand.block);
  if (block == nullptr) return;  // its slots were given back with it
  const Part& part = block->parts[static_cast<std::size_t>(errand.layer_kind)];
  const PartState transition = part.state;
  const bool well = status == Status::ok;
  end_part(errand.block, errand.layer_kind, well);
  if (well) pages_moved(*block, errand.layer_kind);
  const Bytes bytes =
      blocks_.layers_of(errand.layer_kind) * page_kind(block->strand, part.low).bytes;
  if (well) {
    if (transition == PartState::leaving) counters_.left_bytes += bytes;
    if (transition == PartState::arriving) counters_.arrived_bytes += bytes;
    if (transition == PartState::compressing)
      counters_.compressed_pages += blocks_.layers_of(errand.layer_kind);
  } else if (transition == PartState::compressing) {
    // It stays as it is, and is not tried again.
    block->parts[static_cast<std::size_t>(errand.layer_kind)].incompressible |=
        status == Status::checksum || status == Status::rejected;
    if (!block->sequences.empty())
      change_action(*block, errand.layer_kind, place_of(part.action, false));
    if (status == Status::checksum) lose_corrupt({errand.block}, first_layer(errand.layer_kind));
    if (status == Status::rejected) lose({errand.block}, first_layer(errand.layer_kind), status);
    if (blocks_.find(errand.block) == nullptr) return;
  } else if (transition == PartState::arriving && status == Status::checksum) {
    for (int layer = 0; layer < config_.layers; ++layer)
      if (blocks_.kind(layer) == errand.layer_kind && is_corrupt(errand.block, layer)) {
        lose_corrupt({errand.block}, layer);
        return;  // it stays where it is until its sequences let go of it
      }
  }
  wish(errand.block);
}

// Steps whose groups have all ended, and before which nothing is in flight that could fail them.
void KvCache::end_steps() {
  while (!steps_.empty() && steps_.front().groups == 0) {
    Step& step = steps_.front();
    const auto appends = [&](const Errand& errand) {
      return errand.kind == Errand::Kind::append && errand.step < step.id &&
             std::any_of(errand.given.begin(), errand.given.end(), [&](const Given& given) {
               return std::find(step.sequences.begin(), step.sequences.end(), given.sequence) !=
                      step.sequences.end();
             });
    };
    if (std::any_of(errands_.begin(), errands_.end(), appends)) return;
    end_probings(step);
    if (step.done.word != nullptr) let_happen(step.done);
    if (step.announced)
      events_.push_back({.kind = RuntimeEvent::Kind::attended,
                         .status = step.status,
                         .step = step.id,
                         .layer = step.layer});
    steps_.pop_front();
  }
}

Tokens KvCache::page_begin(const Running& sequence, Tokens token) const {
  const TokenLayout& layout = *sequence.layout;
  const Tokens own = layout.own_tokens(token);
  Tokens begin = token;
  if (const Tokens over = own % config_.own_page_tokens; over != 0)
    begin = std::min(begin, layout.token_of_own(own - over));
  if (ends_in_block(sequence, token))
    begin = std::min(begin, layout.visual_first_token(layout.visual_blocks(token) - 1));
  return begin;
}

void KvCache::lose(SequenceId id, Tokens first_token, int layer, Status status) {
  Running* sequence = find(id);
  if (sequence == nullptr) return;
  spoil_steps(id, 0, status);
  const Tokens longest = *std::max_element(sequence->appended.begin(), sequence->appended.end());
  if (first_token >= std::min(longest, sequence->lost_from)) return;
  counters_.lost_tokens += std::min(longest, sequence->lost_from) - first_token;
  sequence->lost_from = first_token;
  events_.push_back({.kind = RuntimeEvent::Kind::lost,
                     .status = status,
                     .sequence = id,
                     .layer = layer,
                     .first_token = first_token});
}

// Of every sequence that holds some of them, and of all that may come to.
void KvCache::lose(std::vector<BlockId> lost, int layer, Status status) {
  std::sort(lost.begin(), lost.end());
  std::vector<std::uint32_t> owners;
  for (const BlockId id : lost)
    if (const Block* block = blocks_.find(id))
      owners.insert(owners.end(), block->sequences.begin(), block->sequences.end());
  std::sort(owners.begin(), owners.end());
  owners.erase(std::unique(owners.begin(), owners.end()), owners.end());
  for (const std::uint32_t owner : owners) lose_of(owner, lost, layer, status);
  for (const BlockId id : lost)
    if (const Block* block = blocks_.find(id); block != nullptr && block->unit) {
      ++counters_.spoiled_segments;
      drop_content(*block->unit);
    }
}

// The first token that is in one of the `lost` blocks, which are sorted; kNeverLost: none is.
Tokens KvCache::first_token_of(const Running& sequence, std::span<const BlockId> lost) const {
  const auto first_lost = [&](const std::vector<BlockId>& blocks) {
    const auto found = std::find_if(blocks.begin(), blocks.end(), [&](BlockId block) {
      return std::binary_search(lost.begin(), lost.end(), block);
    });
    return static_cast<Tokens>(found - blocks.begin());
  };
  const TokenLayout& layout = *sequence.layout;
  const auto own = static_cast<Tokens>(sequence.own.size()),
             visual = static_cast<Tokens>(sequence.visual.size());
  Tokens first_token = kNeverLost;
  const Tokens first_own = first_lost(sequence.own), first_visual = first_lost(sequence.visual);
  const bool is_tail_lost =
      sequence.tail && std::binary_search(lost.begin(), lost.end(), *sequence.tail);
  if (first_own < own || is_tail_lost)
    first_token = layout.token_of_own(first_own * config_.own_page_tokens);
  if (first_visual < visual)
    first_token = std::min(first_token, layout.visual_first_token(first_visual));
  return first_token;
}

void KvCache::lose_of(std::uint32_t owner, std::span<const BlockId> lost, int layer,
                      Status status) {
  const Running& sequence = sequences_[owner];
  const SequenceId id{owner, sequence.generation};
  const Tokens first_token = first_token_of(sequence, lost);
  if (first_token != kNeverLost) lose(id, first_token, layer, status);
  // What is promoted is a copy.
  if (std::none_of(sequence.promoted.begin(), sequence.promoted.end(), [&](BlockId block) {
        return std::binary_search(lost.begin(), lost.end(), block);
      }))
    return;
  spoil_steps(id, 0, status);
  ++counters_.unselected_for_faults;
  give_up_promotion(id);
}

}  // namespace modalkv
