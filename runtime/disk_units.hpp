// The units on a disk: whose pages count, and who leaves when it is full. No I/O.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "modalkv/error.hpp"
#include "offload/page_key.hpp"
#include "scheduler/eviction.hpp"

namespace modalkv {

/// The pages of one content.
struct DiskUnit {
  UnitId id{};
  ContentId content{};
  EvictionFacts facts{};  ///< `bytes` as on disk, with those of a store that is under way
  std::unordered_set<PageKey, PageKeyHash> pages{};  ///< that count
  int pins = 0;
  std::uint64_t store_job = 0;  ///< that adds pages to it; 0: none
  bool is_leaving = false;      ///< a victim: counts no more, its pages are being erased
  std::size_t erasing = 0;      ///< of its pages, right now
  Status erased = Status::ok;   ///< the first failure of that
};

class DiskUnits {
 public:
  explicit DiskUnits(EvictionPolicy policy) : eviction_(policy) {}

  /// Units of pages that are there already, in the order in which they were stored.
  void recover(std::span<const PageKey> oldest_first, Nanos reload_ns);

  DiskUnit* find(const ContentId& content);
  const DiskUnit* find(const ContentId& content) const;
  /// Ids are never given twice: none where the content has come back since.
  DiskUnit* find(UnitId id);

  /// Without pages, of a content that has no unit. Evictable at once.
  DiskUnit& add(const ContentId& content, const EvictionFacts& facts);
  /// Other bytes, or other facts altogether. Counts as a use.
  void change(DiskUnit& unit, const EvictionFacts& facts);
  void touch(DiskUnit& unit) { eviction_.touch(unit.id); }
  void pin(DiskUnit& unit);
  void unpin(DiskUnit& unit);
  void add_page(DiskUnit& unit, const PageKey& key) { pages_ += unit.pages.insert(key).second; }
  void remove_page(DiskUnit& unit, const PageKey& key) { pages_ -= unit.pages.erase(key); }
  /// It exists no more, pinned or not.
  void remove(DiskUnit& unit);
  /// All of them.
  std::vector<UnitId> ids() const;

  /// Victims, which are leaving from now on: for `bytes` of them where there are as many.
  std::vector<UnitId> evict(Bytes bytes);
  /// A victim without pages is gone, one with some stays with these.
  void end_eviction(DiskUnit& unit);

  std::size_t size() const { return by_id_.size(); }
  std::size_t pages() const { return pages_; }
  std::size_t leaving() const { return leaving_; }
  Bytes held_bytes() const { return eviction_.held_bytes(); }
  Bytes evictable_bytes() const { return eviction_.evictable_bytes(); }

 private:
  // All words: whoever chose the ids may have left some of them alike.
  struct Hash {
    std::size_t operator()(const ContentId& id) const {
      return static_cast<std::size_t>(id.words[0] ^ id.words[1] ^ id.words[2] ^ id.words[3]);
    }
  };

  void forget(DiskUnit& unit);

  Eviction eviction_;
  std::unordered_map<ContentId, DiskUnit, Hash> units_;
  std::unordered_map<UnitId, DiskUnit*> by_id_;
  std::uint64_t next_id_ = 1;
  std::size_t pages_ = 0, leaving_ = 0;
};

}  // namespace modalkv
