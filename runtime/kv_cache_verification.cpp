// Whether pages are what they should be: which are verified before they are read, and which one it
// was where a step has read a bad one.
#include <algorithm>
#include <functional>
#include <iterator>

#include "kernels/page_codec.hpp"
#include "runtime/kv_cache.hpp"

namespace modalkv {

VerifyPage KvCache::verification(const Address& page, BlockId id, int layer) const {
  const PageIdentity expected = identity(id, layer);
  return {page, expected.content, expected.generation};
}

// One page in so many; fewer where a quarter of a queue would not take them.
void KvCache::plan_verification() {
  verify_every_ = config_.verify_every;
  if (verify_every_ == 0) return;
  Tokens on_device = 0, on_host = 0;
  for (const std::vector<AttendPart>* parts : {&parts_, &staged_parts_})
    for (const AttendPart& part : *parts)
      (part.list->place == PagePlace::cpu ? on_host : on_device) += part.pages;
  const auto least = [&](Tokens pages, QueueId queue) {
    return divide_up(pages, std::max<Tokens>(ledger_.max_ops(queue) / 4, 1));
  };
  verify_every_ = std::max(verify_every_, least(on_device, compute_));
  for (const Host& host : hosts_)
    verify_every_ = std::max(verify_every_, least(on_host, host.queue));
  // Steps alike would verify the same pages for ever. Not others in each: these are in the caches.
  if (step_ % static_cast<std::uint64_t>(16 * config_.layers) == 0) ++pages_read_;
}

// Pages that are still being filled have nothing to be verified by.
void KvCache::add_verification(const AttendPart& part, const Address& slot_pages, int layer) {
  const Tokens every = verify_every_;
  if (every == 0) return;
  const Bytes bytes = page_kind(part.list->strand, part.list->low).bytes;
  for (Tokens page = (every - 1) - pages_read_ % every; page < part.pages; page += every) {
    const BlockId id = part.list->blocks[static_cast<std::size_t>(part.first_page + page)].id;
    const Block& block = blocks_[id];
    if (!is_complete(block)) continue;
    const PageIdentity expected = identity(id, layer);
    auto& op = add_op<VerifyPage>();
    op.page = part.list->place == PagePlace::staged
                  ? Address{slot_pages.space, slot_pages.offset + page * bytes, bytes}
                  : block.pages[static_cast<std::size_t>(layer)].now;
    op.content = expected.content;
    op.generation = expected.generation;
    ++counters_.verified_pages;
  }
  pages_read_ += part.pages;
}

// One page in so many, of those that are read otherwise.
bool KvCache::is_sampled() {
  return config_.verify_every > 0 && ++pages_read_ % config_.verify_every == 0;
}

// A page that the step has read did not verify: which of the host's is it? Where all are well, it
// is one of the device's, or was spoiled on its way and the step can be tried again.
void KvCache::find_corruption(int layer, const Step& step) {
  const LayerKind kind = blocks_.kind(layer);
  std::vector<BlockId> on_host, resident, corrupt;
  for (const SequenceId id : step.sequences) {
    const Running* sequence = find(id);
    if (sequence == nullptr) continue;
    // What is promoted has no checksums before all of it is copied.
    const bool is_promoted =
        sequence->promotion && sequence->promotion->state == Promotion::State::kept;
    for_each_block(*sequence, [&](BlockId block) {
      const PartState state = blocks_[block].parts[static_cast<std::size_t>(kind)].state;
      if (!is_complete(blocks_[block]) || state == PartState::loading ||
          (blocks_[block].strand == Strand::promoted && !is_promoted))
        return;
      (modalkv::on_host(state) ? on_host : resident).push_back(block);
    });
  }
  for (std::vector<BlockId>* blocks : {&on_host, &resident}) {
    std::sort(blocks->begin(), blocks->end());
    blocks->erase(std::unique(blocks->begin(), blocks->end()), blocks->end());
  }
  std::copy_if(on_host.begin(), on_host.end(), std::back_inserter(corrupt),
               [&](BlockId id) { return is_corrupt(id, layer); });
  // What they do not show the next try will.
  if (corrupt.empty() && suspects_.empty())
    for (const BlockId id : resident) suspects_.push_back({id, layer});
  lose_corrupt(std::move(corrupt), layer);
}

// Pages that did not verify. They stay until their sequences let go of them, so that several steps
// can find the same one: it counts the first time.
void KvCache::lose_corrupt(std::vector<BlockId> blocks, int layer) {
  const auto is_known = [&](BlockId id) {
    const Block* block = blocks_.find(id);
    if (block == nullptr) return true;
    const auto& owners = block->sequences;
    return !owners.empty() && std::all_of(owners.begin(), owners.end(), [&](std::uint32_t owner) {
      const Running& sequence = sequences_[owner];
      const Tokens first_token = first_token_of(sequence, std::span(&id, 1));
      return first_token != kNeverLost && sequence.lost_from <= first_token;
    });
  };
  counters_.corrupt_pages += std::count_if(blocks.begin(), blocks.end(), std::not_fn(is_known));
  lose(std::move(blocks), layer, Status::checksum);
}

bool KvCache::is_suspected(const Running& sequence) const {
  const auto is_one_of_its = [&](BlockId id) {
    bool found = false;
    for_each_block(sequence, [&](BlockId block) { found |= block == id; });
    return found;
  };
  return std::any_of(suspects_.begin(), suspects_.end(),
                     [&](const Suspect& suspect) { return is_one_of_its(suspect.block); }) ||
         std::any_of(errands_.begin(), errands_.end(), [&](const Errand& errand) {
           return errand.kind == Errand::Kind::suspect && is_one_of_its(errand.block);
         });
}

void KvCache::verify_suspects() {
  while (!suspects_.empty() && ledger_.has_room(compute_, 1, 1)) {
    const auto [id, layer, reopened] = suspects_.front();
    const Block* block = blocks_.find(id);
    const bool has_checksum = block != nullptr && (reopened || is_complete(*block));
    const Address page =
        has_checksum ? block->pages[static_cast<std::size_t>(layer)].now : Address{};
    if (page.bytes > 0 && tier_of(page) == Tier::device) {
      ops_.assign(1, verification(page, id, layer));
      const Submitted submitted = ledger_.submit(compute_, ops_, {});
      if (submitted.status == Status::busy) return;
      if (submitted.status == Status::ok) {
        Errand& errand = add_errand(Errand::Kind::suspect, submitted.ticket);
        errand.block = id;
        errand.layer = layer;
      }
    }
    suspects_.pop_front();
  }
}

// Of a closed page on the host.
bool KvCache::is_corrupt(BlockId id, int layer) {
  const Address& page = blocks_[id].pages[static_cast<std::size_t>(layer)].now;
  const std::span bytes(host_of(page).memory + page.offset, static_cast<std::size_t>(page.bytes));
  const PageTrailer trailer = read_trailer(bytes);
  return verify_page(bytes) != Status::ok ||
         PageIdentity{trailer.content, trailer.generation} != identity(id, layer);
}

}  // namespace modalkv
