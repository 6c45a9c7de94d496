// KV that stays when its sequences are gone, for others that begin alike: which blocks hold which
// segment of which prompts, and which of them go first.
//
// A segment is found only behind all segments before it, and leaves only after those behind it.
#pragma once

#include <cstdint>
#include <deque>
#include <optional>
#include <set>
#include <span>
#include <unordered_map>
#include <vector>

#include "runtime/block_store.hpp"
#include "scheduler/content_index.hpp"
#include "scheduler/eviction.hpp"

namespace modalkv {

/// A segment behind all before it, and the blocks that hold what those do not. Blocks of the own
/// strand are full; the tokens behind them, fewer than a block's, are in a copy of their own.
struct CachedSegment {
  PrefixId prefix{};
  std::optional<UnitId> before{};  ///< the segment before it
  std::vector<BlockId> own{}, visual{};
  std::optional<BlockId> tail{};

  /// Calls `use(block)` for each block.
  template <typename Use>
  void for_each_block(Use&& use) const {
    for (const BlockId block : own) use(block);
    for (const BlockId block : visual) use(block);
    if (tail) use(*tail);
  }
};

/// One thread at a time. Holds ids only: whoever owns the blocks keeps them while they are here.
class ContentCache {
 public:
  explicit ContentCache(EvictionPolicy policy) : eviction_(policy) {}

  std::optional<UnitId> find(const PrefixId& prefix) const { return index_.find(prefix); }
  /// Of the longest run of leading prefixes that are here, in order. Changes nothing.
  std::vector<UnitId> lookup(std::span<const PrefixId> prefixes) const {
    return index_.lookup(prefixes);
  }
  const CachedSegment& operator[](UnitId unit) const { return entries_.at(unit).segment; }
  const EvictionFacts& facts(UnitId unit) const { return entries_.at(unit).facts; }
  bool contains(UnitId unit) const { return entries_.contains(unit); }
  std::size_t size() const { return entries_.size(); }
  Bytes held_bytes() const { return eviction_.held_bytes(); }
  Bytes evictable_bytes() const { return eviction_.evictable_bytes(); }

  /// A segment whose prefix is not here; the one before it is.
  UnitId add(CachedSegment segment, const EvictionFacts& facts);
  /// A run of them was used.
  void use(std::span<const UnitId> run);
  /// What somebody uses now does not leave. Counted.
  void pin(UnitId unit);
  void unpin(UnitId unit);
  bool is_pinned(UnitId unit) const { return entries_.at(unit).pins > 0; }
  bool is_leaving(UnitId unit) const { return entries_.at(unit).leaving; }
  /// What is to leave first; nothing where all are in use. It is on its way until it has left
  /// (`erase`) or `stay`s.
  std::optional<UnitId> prepare();
  void stay(UnitId unit);
  /// Its copy below has come or gone.
  void reprice(UnitId unit, Nanos reload_ns) { eviction_.reprice(unit, reload_ns); }
  /// It and, in front of it, all that is only found behind it: pinned or not. For the caller to let
  /// go of their blocks.
  std::vector<CachedSegment> erase(UnitId unit);
  std::vector<UnitId> units() const;

 private:
  struct Entry {
    CachedSegment segment{};
    EvictionFacts facts{};
    std::set<UnitId> behind{};  // that name it as `before`
    int pins = 0;               // of callers and of segments behind it
    bool leaving = false;
  };

  CachedSegment take_out(UnitId unit);
  void remember(const PrefixId& prefix, UnitId unit);

  ContentIndex index_;
  Eviction eviction_;
  std::unordered_map<UnitId, Entry> entries_;
  std::unordered_map<PrefixId, UnitId, FirstWord> evicted_;
  std::deque<PrefixId> remembered_;  // of them, the eldest first
  std::uint64_t next_unit_ = 1;
};

}  // namespace modalkv
