// Which half-life of uses suits the traffic: several are tried at once on miniature tiers.
//
// A miniature tier sees a sample of the units, a fixed share by their ids, and has room for three
// quarters of that share of the bytes, so that it fills, and teaches, before the tier does. Until
// then the shortest half-life holds, nearly LRU. Waldspurger et al., "Cache modeling and
// optimization using miniature simulations", USENIX ATC 2017.
#pragma once

#include <unordered_map>
#include <vector>

#include "scheduler/reuse_value_order.hpp"

namespace modalkv {

class HalfLifeSearch {
 public:
  /// `least_remembered`: departed units, of the tier itself.
  explicit HalfLifeSearch(std::size_t least_remembered);

  /// A unit was added to a tier that holds `tier_bytes`, or used in it.
  void see(UnitId id, const EvictionFacts& facts, Bytes tier_bytes);
  /// It is gone for good.
  void erase(UnitId id);

  /// Which reloads least so far, in turnovers of the tier's bytes.
  double best() const { return tries_[best_].half_life; }

 private:
  struct Try {
    Try(double life, std::size_t remembered) : half_life(life), order(life, remembered) {}

    double half_life;
    ReuseValueOrder order;
    std::unordered_map<UnitId, ReuseValueOrder::Unit> units{};
    Bytes bytes = 0;
    double reload_ns = 0;  // fades over a turnover
  };

  static void see(Try& tried, UnitId id, const EvictionFacts& facts, Bytes tier_bytes);

  std::vector<Try> tries_;
  std::size_t best_ = 0;
};

}  // namespace modalkv
