#include "offload/extent_map.hpp"

#include <cassert>
#include <iterator>

namespace modalkv {

ExtentMap::ExtentMap(Bytes bytes) {
  if (bytes > 0) insert(0, bytes);
}

std::optional<Extent> ExtentMap::allocate(Bytes bytes) {
  const auto best = by_bytes_.lower_bound({bytes, 0});
  if (best == by_bytes_.end()) return std::nullopt;
  const auto [hole, offset] = *best;
  remove(by_offset_.find(offset));
  if (hole > bytes) insert(offset + bytes, hole - bytes);
  return Extent{offset, bytes};
}

bool ExtentMap::claim(const Extent& extent) {
  auto hole = by_offset_.upper_bound(extent.offset);
  if (hole == by_offset_.begin()) return false;
  --hole;
  const Extent free{hole->first, hole->second};
  const Bytes end = extent.offset + extent.bytes, free_end = free.offset + free.bytes;
  if (end > free_end) return false;
  remove(hole);
  if (extent.offset > free.offset) insert(free.offset, extent.offset - free.offset);
  if (free_end > end) insert(end, free_end - end);
  return true;
}

void ExtentMap::free(const Extent& extent) {
  Extent joined = extent;
  const auto next = by_offset_.lower_bound(extent.offset);
  assert(next == by_offset_.end() || extent.offset + extent.bytes <= next->first);
  if (next != by_offset_.begin()) {
    const auto previous = std::prev(next);
    assert(previous->first + previous->second <= extent.offset);
    if (previous->first + previous->second == extent.offset) {
      joined = {previous->first, previous->second + joined.bytes};
      remove(previous);
    }
  }
  if (next != by_offset_.end() && next->first == extent.offset + extent.bytes) {
    joined.bytes += next->second;
    remove(next);
  }
  insert(joined.offset, joined.bytes);
}

Bytes ExtentMap::largest_free_bytes() const {
  return by_bytes_.empty() ? 0 : by_bytes_.rbegin()->first;
}

void ExtentMap::insert(Bytes offset, Bytes bytes) {
  by_offset_.emplace(offset, bytes);
  by_bytes_.emplace(bytes, offset);
  free_bytes_ += bytes;
}

void ExtentMap::remove(std::map<Bytes, Bytes>::iterator at) {
  by_bytes_.erase({at->second, at->first});
  free_bytes_ -= at->second;
  by_offset_.erase(at);
}

}  // namespace modalkv
