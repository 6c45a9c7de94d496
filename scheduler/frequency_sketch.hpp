// How often keys were seen lately, in a few bytes a key: a count-min sketch with aging.
//
// Cormode and Muthukrishnan, "An improved data stream summary: the count-min sketch and its
// applications" (2005), with conservative update; aging as in Einziger, Friedman and Manes,
// "TinyLFU: a highly efficient cache admission policy" (2017), section 3.3.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace modalkv {

/// Never below a key's true count since the last aging, up to kMost; above it where all of a key's
/// counters are shared.
class FrequencySketch {
 public:
  static constexpr int kMost = 15;
  /// Counts halve after so many additions a counter.
  static constexpr std::int64_t kAgingPeriod = 10;

  /// Makes room for `keys` distinct keys; never shrinks and forgets nothing.
  void reserve(std::size_t keys);
  void add(std::uint64_t key);
  int count(std::uint64_t key) const;
  /// How often counts were halved.
  std::int64_t agings() const { return agings_; }

 private:
  static constexpr std::size_t kRows = 4;

  std::size_t at(std::size_t row, std::uint64_t key) const;
  void age();

  std::size_t width_ = 16;                                                    // a power of two
  std::vector<std::uint8_t> counts_ = std::vector<std::uint8_t>(kRows * 16);  // [row][width]
  std::int64_t additions_ = 0, agings_ = 0;
};

}  // namespace modalkv
