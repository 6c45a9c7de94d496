#include "runtime/disk_units.hpp"

#include <algorithm>

#include "offload/page_seal.hpp"

namespace modalkv {
namespace {

Bytes stored_bytes(const DiskUnit& unit) {
  Bytes bytes = 0;
  for (const PageKey& key : unit.pages) bytes += stored_bytes(key.shape);
  return bytes;
}

}  // namespace

// A unit is as recent as its newest page.
void DiskUnits::recover(std::span<const PageKey> oldest_first, Nanos reload_ns) {
  std::vector<DiskUnit*> newest_first;
  for (auto key = oldest_first.rbegin(); key != oldest_first.rend(); ++key) {
    DiskUnit& unit = units_[key->content];
    if (unit.pages.empty()) {
      unit.id = UnitId{next_id_++};
      unit.content = key->content;
      unit.facts.format = key->shape.format;
      unit.facts.reload_ns = reload_ns;
      newest_first.push_back(&unit);
    }
    add_page(unit, *key);
    unit.facts.bytes += stored_bytes(key->shape);
  }
  for (auto unit = newest_first.rbegin(); unit != newest_first.rend(); ++unit) {
    by_id_.emplace((*unit)->id, *unit);
    eviction_.insert((*unit)->id, (*unit)->facts);
  }
}

DiskUnit* DiskUnits::find(const ContentId& content) {
  const auto found = units_.find(content);
  return found == units_.end() ? nullptr : &found->second;
}

const DiskUnit* DiskUnits::find(const ContentId& content) const {
  const auto found = units_.find(content);
  return found == units_.end() ? nullptr : &found->second;
}

DiskUnit* DiskUnits::find(UnitId id) {
  const auto found = by_id_.find(id);
  return found == by_id_.end() ? nullptr : found->second;
}

DiskUnit& DiskUnits::add(const ContentId& content, const EvictionFacts& facts) {
  DiskUnit& unit = units_[content];
  unit.id = UnitId{next_id_++};
  unit.content = content;
  unit.facts = facts;
  by_id_.emplace(unit.id, &unit);
  eviction_.insert(unit.id, facts);
  return unit;
}

void DiskUnits::change(DiskUnit& unit, const EvictionFacts& facts) {
  if (unit.pins > 0) eviction_.unpin(unit.id);
  eviction_.erase(unit.id);
  unit.facts = facts;
  eviction_.insert(unit.id, facts);
  if (unit.pins > 0) eviction_.pin(unit.id);
}

void DiskUnits::pin(DiskUnit& unit) {
  if (unit.pins++ == 0) eviction_.pin(unit.id);
}

void DiskUnits::unpin(DiskUnit& unit) {
  if (--unit.pins == 0) eviction_.unpin(unit.id);
}

void DiskUnits::remove(DiskUnit& unit) {
  if (unit.pins > 0) eviction_.unpin(unit.id);
  eviction_.erase(unit.id);
  forget(unit);
}

std::vector<UnitId> DiskUnits::ids() const {
  std::vector<UnitId> all;
  all.reserve(by_id_.size());
  for (const auto& [id, unit] : by_id_) all.push_back(id);
  return all;
}

std::vector<UnitId> DiskUnits::evict(Bytes bytes) {
  std::vector<UnitId> victims = eviction_.prepare(std::min(bytes, eviction_.evictable_bytes()));
  for (const UnitId id : victims) by_id_.at(id)->is_leaving = true;
  leaving_ += victims.size();
  return victims;
}

void DiskUnits::end_eviction(DiskUnit& unit) {
  if (unit.pages.empty()) {
    eviction_.complete(unit.id);
    return forget(unit);
  }
  eviction_.cancel(unit.id);
  --leaving_;
  unit.is_leaving = false;
  unit.erased = Status::ok;
  EvictionFacts facts = unit.facts;
  facts.bytes = stored_bytes(unit);
  if (facts.bytes != unit.facts.bytes) change(unit, facts);
}

void DiskUnits::forget(DiskUnit& unit) {
  leaving_ -= unit.is_leaving;
  pages_ -= unit.pages.size();
  by_id_.erase(unit.id);
  units_.erase(ContentId{unit.content});  // a copy: the unit goes with it
}

}  // namespace modalkv
