// Taking K and V of new tokens: the pages they go into, and what happens where there is no room.
#include <algorithm>

#include "runtime/kv_cache.hpp"

namespace modalkv {

Status KvCache::append(std::span<const AppendRequest> batch, int layer,
                       std::span<const Ticket> after) {
  progress();
  if (const Status status = check(batch, layer); status != Status::ok) return status;
  for (const AppendRequest& request : batch)
    if (const Status status = bring_tail(request.sequence); status != Status::ok)
      return no_room(status);
  pieces_.clear();
  for (std::size_t r = 0; r < batch.size(); ++r) {
    const Running& sequence = *find(batch[r].sequence);
    const Tokens begin = sequence.appended[static_cast<std::size_t>(layer)];
    sequence.layout->for_each_piece(begin, begin + batch[r].tokens, [&](const LayoutPiece& piece) {
      pieces_.push_back({r, piece});
    });
  }
  const auto most_ops = static_cast<int>(2 * pieces_.size());
  if (most_ops > ledger_.max_ops(compute_)) return Status::rejected;
  if (!ledger_.has_room(compute_, 1, most_ops)) return no_room(Status::busy);

  Changes changes;
  Status status = Status::ok;
  for (const AppendPiece& piece : pieces_)
    if (status = open_page(piece, batch, layer, changes); status != Status::ok) break;
  if (status == Status::ok) {
    ops_.clear();
    for (const AppendPiece& piece : pieces_) add_rows(piece, batch[piece.request], layer);
    const Submitted submitted = ledger_.submit(compute_, ops_, after);
    status = submitted.status;
    if (status == Status::ok) {
      finish_append(batch, layer, submitted.ticket);
      return Status::ok;
    }
  }
  undo(batch, changes);
  return no_room(status);
}

Status KvCache::check(std::span<const AppendRequest> batch, int layer) {
  if (batch.empty() || layer < 0 || layer >= config_.layers) return Status::rejected;
  ++calls_;
  for (const AppendRequest& request : batch) {
    Running* sequence = find(request.sequence);
    if (sequence == nullptr || sequence->paused || sequence->lost_from != kNeverLost ||
        sequence->call == calls_ || request.tokens < 1 ||
        request.keys.bytes != rows_bytes(request.tokens) ||
        request.values.bytes != rows_bytes(request.tokens))
      return Status::rejected;
    sequence->call = calls_;
  }
  return Status::ok;
}

// The block of a piece and its page of this layer, made where there is none.
Status KvCache::open_page(const AppendPiece& of, std::span<const AppendRequest> batch, int layer,
                          Changes& changes) {
  const LayoutPiece& piece = of.piece;
  const SequenceId owner = batch[of.request].sequence;
  Running& sequence = *find(owner);
  std::vector<BlockId>& ids = blocks_of(sequence, piece.strand);
  const auto index = static_cast<std::size_t>(piece.block);
  if (index == ids.size()) {
    const BlockId id = make_block(sequence, piece.strand, piece.block);
    ids.push_back(id);
    changes.made.push_back({of.request, id});
    Block& block = blocks_[id];
    block.sequences.push_back(owner.index);
    if (piece.strand == Strand::visual)
      for (const LayerKind kind : kAllLayerKinds) choose_action(block, kind);
  }
  Block& block = blocks_[ids[index]];
  const LayerKind kind = blocks_.kind(layer);
  Part& part = block.parts[static_cast<std::size_t>(kind)];
  if (part.state != PartState::resident) return await_arrival(block, kind);
  const bool whole = piece.at == 0 && piece.tokens == block.tokens;
  PageSlots& page = block.pages[static_cast<std::size_t>(layer)];
  if (part.low && !whole) return Status::rejected;  // layers must be given the same chunks
  if (page.now.bytes > 0) return Status::ok;
  const bool is_first = part.begun_layers == 0;
  const bool low = is_first ? whole && wants_low(block, kind) &&
                                  !(is_candidate(block, kind) && candidates_fit(batch, layer))
                            : part.low;
  const Bytes reserved_bytes = sequence.reserved_bytes;
  if (const Status status = take_device(page_kind(block.strand, low).bytes, sequence, page.now);
      status != Status::ok)
    return status;
  part.low = low;
  ++part.begun_layers;
  changes.made.push_back({of.request, ids[index], layer, reserved_bytes - sequence.reserved_bytes});
  return Status::ok;
}

// Of a sequence's tokens, and nobody's yet.
BlockId KvCache::make_block(const Running& sequence, Strand strand, Tokens index) {
  const TokenLayout& layout = *sequence.layout;
  const bool visual = strand == Strand::visual;
  const BlockId id =
      blocks_.add(strand, visual ? layout.visual_tokens(index) : config_.own_page_tokens);
  Block& block = blocks_[id];
  block.stays_high = layout.holds_high(strand, index);
  block.name = name_of(sequence, strand, index);
  if (!visual) return id;
  block.hidden = layout.hidden(index);
  if (std::all_of(block.hidden.begin(), block.hidden.end(),
                  [](std::uint64_t word) { return word == 0; }))
    block.hidden.clear();
  return id;
}

void KvCache::undo(std::span<const AppendRequest> batch, const Changes& changes) {
  for (auto made = changes.made.rbegin(); made != changes.made.rend(); ++made) {
    Running& sequence = *find(batch[made->request].sequence);
    Block& block = blocks_[made->block];
    if (made->layer < 0) {
      std::vector<BlockId>& ids = blocks_of(sequence, block.strand);
      drop(ids.back(), batch[made->request].sequence, true);
      ids.pop_back();
      continue;
    }
    PageSlots& page = block.pages[static_cast<std::size_t>(made->layer)];
    set_reserved(sequence, sequence.reserved_bytes + made->reserved_bytes);
    device_pool_.put_back(page.now);
    page.now = {};
    Part& part = block.parts[static_cast<std::size_t>(blocks_.kind(made->layer))];
    if (--part.begun_layers == 0) part.low = false;
  }
}

// Operations that put the rows of a piece into its page.
void KvCache::add_rows(const AppendPiece& of, const AppendRequest& request, int layer) {
  const LayoutPiece& piece = of.piece;
  Running& sequence = *find(request.sequence);
  const BlockId id = blocks_of(sequence, piece.strand)[static_cast<std::size_t>(piece.block)];
  const Block& block = blocks_[id];
  const Part& part = block.parts[static_cast<std::size_t>(blocks_.kind(layer))];
  const Address& page = block.pages[static_cast<std::size_t>(layer)].now;
  const Tokens begin = sequence.appended[static_cast<std::size_t>(layer)];
  const auto rows = [&](const Address& all) -> Address {
    return {all.space, all.offset + rows_bytes(piece.token - begin), rows_bytes(piece.tokens)};
  };
  const Address keys = rows(request.keys), values = rows(request.values);
  const PageShape& page_shape = page_kind(block.strand, part.low).shape;
  const PageIdentity identity = this->identity(id, layer);
  if (part.low) {
    ops_.push_back(Encode{.keys = keys,
                          .values = values,
                          .page = page,
                          .shape = page_shape,
                          .tokens = piece.tokens,
                          .input = config_.input,
                          .content = identity.content,
                          .generation = identity.generation});
  } else {
    auto& op = add_op<Append>();
    op.keys = keys;
    op.values = values;
    op.page = page;
    op.shape = page_shape;
    op.first = piece.at;
    op.tokens = piece.tokens;
    op.input = config_.input;
    if (piece.at + piece.tokens == block.tokens)
      add_close(page, page_shape, block.tokens, identity);
  }
}

// What a page's trailer says: whose it is. Of known content the same in every process; else this
// block's alone.
KvCache::PageIdentity KvCache::identity(BlockId id, int layer) const {
  const BlockName& name = blocks_.find(id)->name;
  const auto in_layer = static_cast<std::uint64_t>(layer);
  if (!name.is_unique()) return {name.prefix, in_layer << 32 | name.page};
  return {{{id.index + std::uint64_t{1}, id.generation, in_layer, 0}}, id.generation};
}

void KvCache::add_close(const Address& page, const PageShape& shape, Tokens tokens,
                        const PageIdentity& identity) {
  ops_.push_back(Close{page, shape, tokens, identity.content, identity.generation});
}

void KvCache::finish_append(std::span<const AppendRequest> batch, int layer, Ticket ticket) {
  Errand& errand = add_errand(Errand::Kind::append, ticket);
  errand.layer = layer;
  errand.step = step_;
  for (const AppendPiece& of : pieces_) {
    const LayoutPiece& piece = of.piece;
    const BlockId id = blocks_of(*find(batch[of.request].sequence),
                                 piece.strand)[static_cast<std::size_t>(piece.block)];
    Block& block = blocks_[id];
    block.last_write = ticket;
    if (piece.at + piece.tokens < block.tokens) continue;
    const LayerKind kind = blocks_.kind(layer);
    Part& part = block.parts[static_cast<std::size_t>(kind)];
    if (++part.closed_layers == blocks_.layers_of(kind) && piece.strand == Strand::visual) wish(id);
  }
  for (const AppendRequest& request : batch) {
    counters_.appended_tokens += request.tokens;
    Running& sequence = *find(request.sequence);
    Tokens& appended = sequence.appended[static_cast<std::size_t>(layer)];
    errand.given.push_back({request.sequence, sequence.epoch, appended});
    appended += request.tokens;
    settle_own(sequence, appended);
  }
}

}  // namespace modalkv
