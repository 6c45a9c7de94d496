// The lists of pages that attention reads: made when a sequence is first attended to in a layer of
// a kind, added to as it grows, and made anew once one of its pages has moved.
#include <algorithm>
#include <cstring>

#include "runtime/kv_cache.hpp"

namespace modalkv {
namespace {

constexpr Tokens kWordTokens = 64;

}  // namespace

// What a block's pages were listed as is no longer so.
void KvCache::pages_moved(const Block& block, LayerKind kind) {
  for (const std::uint32_t sequence : block.sequences)
    sequences_[sequence].lists[static_cast<std::size_t>(kind)].stale = true;
}

// Lists all blocks of the tokens that a layer of a kind has. False: there is no memory for the
// tables.
bool KvCache::list_blocks(Running& sequence, LayerKind kind, const LayoutExtent& extent) {
  SequenceLists& lists = sequence.lists[static_cast<std::size_t>(kind)];
  if (lists.stale) {
    forget_lists(lists);
    lists.stale = false;
    lists.version = ++list_versions_;
  }
  for (; lists.own_blocks < extent.own_blocks; ++lists.own_blocks)
    if (!list_block(sequence, kind, Strand::own, lists.own_blocks)) return false;
  for (; lists.visual_blocks < extent.visual_blocks; ++lists.visual_blocks)
    if (!list_block(sequence, kind, Strand::visual, lists.visual_blocks)) return false;
  if (sequence.promotion && sequence.promotion->state == Promotion::State::kept &&
      kind == LayerKind::planned)
    for (; lists.promoted_blocks < static_cast<Tokens>(sequence.promoted.size());
         ++lists.promoted_blocks)
      if (!list_block(sequence, kind, Strand::promoted, lists.promoted_blocks)) return false;
  return true;
}

bool KvCache::list_block(Running& sequence, LayerKind kind, Strand strand, Tokens index) {
  const BlockId id = blocks_of(sequence, strand)[static_cast<std::size_t>(index)];
  const Block& block = blocks_[id];
  const Part& part = block.parts[static_cast<std::size_t>(kind)];
  KvList wanted{.strand = strand, .low = part.low};
  if (on_host(part.state)) {
    wanted.place = is_on_cpu(part.action) ? PagePlace::cpu : PagePlace::staged;
    const Address& page = block.pages[static_cast<std::size_t>(first_layer(kind))].now;
    if (wanted.place == PagePlace::cpu)
      wanted.node = static_cast<std::uint8_t>(&host_of(page) - hosts_.data());
  }
  std::vector<KvList>& lists = sequence.lists[static_cast<std::size_t>(kind)].lists;
  auto list = std::find_if(lists.begin(), lists.end(), [&](const KvList& l) {
    return l.strand == wanted.strand && l.low == wanted.low && l.place == wanted.place &&
           l.node == wanted.node;
  });
  if (list == lists.end()) {
    wanted.layers.resize(static_cast<std::size_t>(config_.layers));
    list = lists.insert(list, std::move(wanted));
  }
  list->blocks.push_back({id, index});
  return list_hidden(*list, block);
}

// A bit for each token of the list as soon as one is hidden.
bool KvCache::list_hidden(KvList& list, const Block& block) {
  if (list.hidden.bytes == 0 && block.hidden.empty()) return true;
  const Tokens page_words = divide_up(page_kind(list.strand, list.low).shape.tokens, kWordTokens);
  const auto pages = static_cast<Tokens>(list.blocks.size());
  const Bytes page_bytes = page_words * 8;
  const bool is_first = list.hidden.bytes == 0;
  if (!enlarge(list.hidden, is_first ? 0 : (pages - 1) * page_bytes, pages * page_bytes))
    return false;
  auto* words = in_tables<std::uint64_t>(list.hidden);
  if (is_first) std::memset(words, 0, static_cast<std::size_t>((pages - 1) * page_bytes));
  for (Tokens word = 0; word < page_words; ++word)
    words[(pages - 1) * page_words + word] =
        block.hidden.empty() ? 0 : block.hidden[static_cast<std::size_t>(word)];
  return true;
}

// What the sequence has promoted at a layer is not attended to among the others.
bool KvCache::hide_promoted(const Running& sequence, const KvList& list, int layer, Tokens pages,
                            LayerPages& at) {
  const auto& promotion = sequence.promotion;
  if (list.strand != Strand::visual || !promotion || promotion->state != Promotion::State::kept ||
      blocks_.kind(layer) != LayerKind::planned)
    return true;
  const Tokens page_words = config_.visual_page_tokens / kWordTokens;
  const Bytes page_bytes = page_words * 8;
  if (!enlarge(at.hidden, at.filled * page_bytes, pages * page_bytes)) return false;
  const auto promoted = promotion->choice.tokens(layer);
  for (Tokens page = at.filled; page < pages; ++page) {
    const ListedBlock& listed = list.blocks[static_cast<std::size_t>(page)];
    auto* words = in_tables<std::uint64_t>(at.hidden) + page * page_words;
    std::fill_n(words, page_words, 0);
    const std::vector<std::uint64_t>& hidden = blocks_[listed.id].hidden;
    std::copy(hidden.begin(), hidden.end(), words);
    const Tokens begin = sequence.layout->visual_first_token(listed.index);
    const Tokens end = begin + sequence.layout->visual_tokens(listed.index);
    for (auto token = std::lower_bound(promoted.begin(), promoted.end(), begin);
         token != promoted.end() && *token < end; ++token)
      words[(*token - begin) / kWordTokens] |= std::uint64_t{1} << (*token - begin) % kWordTokens;
  }
  return true;
}

// Where the first `pages` pages lie in a layer.
bool KvCache::locate(const Running& sequence, KvList& list, int layer, Tokens pages) {
  LayerPages& at = list.layers[static_cast<std::size_t>(layer)];
  if (at.filled >= pages) return true;
  if (!hide_promoted(sequence, list, layer, pages, at)) return false;
  const bool staged = list.place == PagePlace::staged;
  if (!staged && !enlarge(at.table, at.filled * kPageTableEntryBytes, pages * kPageTableEntryBytes))
    return false;
  const Bytes begin = list.place == PagePlace::resident ? device_pool_.where().offset
                      : list.place == PagePlace::cpu    ? hosts_[list.node].pool.where().offset
                                                        : 0;
  for (; at.filled < pages; ++at.filled) {
    const ListedBlock& listed = list.blocks[static_cast<std::size_t>(at.filled)];
    const Address& page = blocks_[listed.id].pages[static_cast<std::size_t>(layer)].now;
    if (!staged) {
      in_tables<std::int64_t>(at.table)[at.filled] = page.offset - begin;
      continue;
    }
    HostRun* run = at.runs.empty() ? nullptr : &at.runs.back();
    if (run != nullptr && run->from.space == page.space &&
        run->from.offset + run->from.bytes == page.offset &&
        (host_chunk_bytes_ == 0 ||
         run->from.offset / host_chunk_bytes_ == page.offset / host_chunk_bytes_)) {
      run->from.bytes += page.bytes;
      ++run->pages;
    } else {
      at.runs.push_back({at.filled, 1, page});
    }
  }
  return true;
}

// Room for `bytes` in a table of which `used_bytes` are filled. What operations in flight read of
// it stays where it is for as long as they need it.
bool KvCache::enlarge(Address& table, Bytes used_bytes, Bytes bytes) {
  if (bytes <= table.bytes) return true;
  const auto larger = list_tables_.take(bytes);
  if (!larger) return false;
  if (used_bytes > 0)
    std::memcpy(in_tables<std::byte>(*larger), in_tables<std::byte>(table),
                static_cast<std::size_t>(used_bytes));
  list_tables_.give_back(table, ledger_.fence());
  table = *larger;
  return true;
}

void KvCache::forget_lists(SequenceLists& lists) {
  for (KvList& list : lists.lists) {
    list_tables_.give_back(list.hidden, ledger_.fence());
    for (const LayerPages& at : list.layers)
      for (const Address& table : {at.table, at.hidden})
        list_tables_.give_back(table, ledger_.fence());
  }
  lists = {};
}

// Makes room for the lists of a batch.
void KvCache::forget_other_lists(std::span<const SequenceId> batch) {
  for (std::uint32_t i = 0; i < sequences_.size(); ++i) {
    if (std::any_of(batch.begin(), batch.end(), [&](SequenceId id) { return id.index == i; }))
      continue;
    for (SequenceLists& lists : sequences_[i].lists) forget_lists(lists);
  }
}

// In the first `pages` pages of a list: the last of them may be filling. Those behind the end of an
// image are hidden, and count.
Tokens KvCache::tokens_of(const KvList& list, Tokens pages, const LayoutExtent& extent) {
  const Tokens page_tokens = page_kind(list.strand, list.low).shape.tokens;
  const Tokens last = list.blocks[static_cast<std::size_t>(pages - 1)].index;
  Tokens in_last = page_tokens;
  if (list.strand == Strand::own) {
    in_last = std::min(page_tokens, extent.own_tokens - last * page_tokens);
  } else if (list.strand == Strand::promoted) {
    in_last = blocks_[list.blocks[static_cast<std::size_t>(pages - 1)].id].tokens;
  } else if (last + 1 == extent.visual_blocks) {
    in_last = extent.last_visual_tokens;
  }
  return (pages - 1) * page_tokens + in_last;
}

}  // namespace modalkv
