// Which bytes of a file are free: best fit, neighbours joined.
#pragma once

#include <map>
#include <optional>
#include <set>
#include <utility>

#include "modalkv/units.hpp"

namespace modalkv {

struct Extent {
  Bytes offset = 0;
  Bytes bytes = 0;

  friend constexpr bool operator==(const Extent&, const Extent&) = default;
};

/// O(log n) in the number of free extents. Pages come in few sizes, so that best fit mostly fills
/// the hole that a page of the same size left.
class ExtentMap {
 public:
  explicit ExtentMap(Bytes bytes);

  /// The smallest free extent that is large enough, the first of several.
  std::optional<Extent> allocate(Bytes bytes);
  /// This very extent; false where not all of it is free.
  bool claim(const Extent& extent);
  void free(const Extent& extent);

  Bytes free_bytes() const { return free_bytes_; }
  Bytes largest_free_bytes() const;

 private:
  void insert(Bytes offset, Bytes bytes);
  void remove(std::map<Bytes, Bytes>::iterator at);

  std::map<Bytes, Bytes> by_offset_;            // to bytes
  std::set<std::pair<Bytes, Bytes>> by_bytes_;  // and offset
  Bytes free_bytes_ = 0;
};

}  // namespace modalkv
