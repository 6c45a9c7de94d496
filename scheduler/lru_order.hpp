// Eviction order: least recently used first.
#pragma once

#include <cstdint>

#include "scheduler/ranking.hpp"

namespace modalkv {

class LruOrder {
 public:
  using Unit = RankedUnit;

  void add(Unit& unit) {
    unit.used = ++uses_;
    ranking_.insert(unit);
  }
  void use(Unit& unit) { ranking_.move(unit, 0, ++uses_); }
  void reprice(Unit&) {}
  void hold(Unit& unit) { ranking_.remove(unit); }
  void release(Unit& unit) { ranking_.insert(unit); }
  void evict(Unit&) {}
  void erase(Unit&) {}
  Unit* lowest() const { return ranking_.lowest(); }

 private:
  std::uint64_t uses_ = 0;
  Ranking<Unit> ranking_;
};

}  // namespace modalkv
