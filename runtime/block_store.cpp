#include "runtime/block_store.hpp"

#include <cassert>
#include <cstdio>
#include <cstdlib>
#include <utility>

namespace modalkv {
namespace {

// A bug of ours: pages would be lost or mixed up if we went on.
void require(bool holds, const char* what) {
  if (holds) return;
  std::fprintf(stderr, "modalkv: a page's state is broken: %s\n", what);
  std::abort();
}

}  // namespace

BlockStore::BlockStore(std::vector<LayerKind> layer_kinds) : layer_kinds_(std::move(layer_kinds)) {
  for (const LayerKind kind : layer_kinds_) ++layers_of_[static_cast<std::size_t>(kind)];
}

BlockId BlockStore::add(Strand strand, Tokens tokens) {
  if (free_.empty()) {
    free_.push_back(static_cast<std::uint32_t>(blocks_.size()));
    blocks_.emplace_back().pages.resize(layer_kinds_.size());
  }
  const std::uint32_t index = free_.back();
  free_.pop_back();
  Block& block = blocks_[index];
  // Memory of an earlier block is kept.
  std::vector<PageSlots> pages = std::move(block.pages);
  std::vector<std::uint64_t> hidden = std::move(block.hidden);
  std::vector<std::uint32_t> sequences = std::move(block.sequences);
  pages.assign(layer_kinds_.size(), {});
  hidden.clear();
  sequences.clear();
  block = {.generation = block.generation + 1, .strand = strand, .tokens = tokens};
  block.pages = std::move(pages);
  block.hidden = std::move(hidden);
  block.sequences = std::move(sequences);
  block.owners = block.awake_owners = 1;
  ++live_;
  return {index, block.generation};
}

const Block* BlockStore::find(BlockId id) const {
  if (id.index >= blocks_.size()) return nullptr;
  const Block& block = blocks_[id.index];
  return block.owners > 0 && block.generation == id.generation ? &block : nullptr;
}

Block* BlockStore::find(BlockId id) {
  return const_cast<Block*>(std::as_const(*this).find(id));
}

Block& BlockStore::operator[](BlockId id) {
  Block* block = find(id);
  require(block != nullptr, "a block is named that is gone");
  return *block;
}

void BlockStore::begin(BlockId id, LayerKind kind, PartState transition, bool next_low) {
  Part& part = (*this)[id].parts[static_cast<std::size_t>(kind)];
  const PartState from =
      transition == PartState::arriving ? PartState::hosted : PartState::resident;
  require(in_transition(transition) && part.state == from, "an illegal transition");
  require(!part.low || next_low, "what is compressed stays so");
  part.state = transition;
  part.next_low = next_low;
  if (transition == PartState::loading) part.begun_layers = part.closed_layers = layers_of(kind);
}

void BlockStore::end(BlockId id, LayerKind kind, bool well, std::vector<Address>& given_up) {
  Block& block = (*this)[id];
  Part& part = block.parts[static_cast<std::size_t>(kind)];
  require(in_transition(part.state), "the end of a transition that never began");
  for (int layer = 0; layer < layers(); ++layer) {
    PageSlots& page = block.pages[static_cast<std::size_t>(layer)];
    if (this->kind(layer) != kind || page.next.bytes == 0) continue;
    if (well) std::swap(page.now, page.next);
    if (page.next.bytes > 0) given_up.push_back(page.next);
    page.next = {};
  }
  const bool loaded = part.state == PartState::loading;
  if (loaded && !well) part.begun_layers = part.closed_layers = 0;
  const bool was_on_host = part.state == PartState::arriving;
  const bool is_on_host = well ? part.state == PartState::leaving || loaded : was_on_host;
  part.state = is_on_host ? PartState::hosted : PartState::resident;
  if (well) part.low = part.next_low;
}

void BlockStore::remove(BlockId id, std::vector<Address>& given_up) {
  Block& block = (*this)[id];
  for (PageSlots& page : block.pages)
    for (Address* slot : {&page.now, &page.next})
      if (slot->bytes > 0) given_up.push_back(std::exchange(*slot, {}));
  block.owners = 0;
  free_.push_back(id.index);
  --live_;
}

}  // namespace modalkv
