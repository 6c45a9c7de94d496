// Units in the order in which they leave a tier.
#pragma once

#include <cstddef>
#include <cstdint>
#include <set>
#include <utility>

#include "scheduler/eviction_facts.hpp"
#include "scheduler/unit.hpp"

namespace modalkv {

/// What every policy keeps of a unit. Stays where it is while it is ranked.
struct RankedUnit {
  UnitId id{};
  EvictionFacts facts{};
  double priority = 0;     ///< the least leaves first
  std::uint64_t used = 0;  ///< which use of any unit was the last of this one; of equals, the least
  bool ranked = false;     ///< may leave: it is in a ranking
};

/// Ranked units by (priority, used): O(log n) a change, and no two are equal. Refers to the units.
template <typename Unit>
class Ranking {
 public:
  void insert(Unit& unit) {
    ranks_.insert(rank(unit));
    unit.ranked = true;
  }
  void remove(Unit& unit) {
    ranks_.erase(rank(unit));
    unit.ranked = false;
  }
  /// Gives `unit` another place; one that is not ranked gets it when it is inserted.
  void move(Unit& unit, double priority, std::uint64_t used) {
    auto node = unit.ranked ? ranks_.extract(rank(unit)) : typename Ranks::node_type{};
    unit.priority = priority;
    unit.used = used;
    if (node.empty()) return;
    node.value() = rank(unit);
    ranks_.insert(std::move(node));
  }

  Unit* lowest() const { return ranks_.empty() ? nullptr : ranks_.begin()->unit; }
  std::size_t size() const { return ranks_.size(); }

 private:
  struct Rank {
    double priority;
    std::uint64_t used;
    Unit* unit;

    friend bool operator<(const Rank& a, const Rank& b) {
      return a.priority != b.priority ? a.priority < b.priority : a.used < b.used;
    }
  };
  using Ranks = std::set<Rank>;

  static Rank rank(Unit& unit) { return {unit.priority, unit.used, &unit}; }

  Ranks ranks_;
};

}  // namespace modalkv
