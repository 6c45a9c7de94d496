// Eviction order by what keeping a unit saves, with the half-life that suits the traffic.
#pragma once

#include "scheduler/half_life_search.hpp"
#include "scheduler/reuse_value_order.hpp"

namespace modalkv {

class CostAwareOrder {
 public:
  using Unit = ReuseValueOrder::Unit;

  void add(Unit& unit);
  void use(Unit& unit);
  void reprice(Unit& unit) { order_.reprice(unit); }
  void hold(Unit& unit) { order_.hold(unit); }
  void release(Unit& unit) { order_.release(unit); }
  void evict(Unit& unit);
  void erase(Unit& unit);
  Unit* lowest() const { return order_.lowest(); }

 private:
  // A use that was long ago outweighs none at all: remembering is cheap beside a unit's bytes.
  static constexpr std::size_t kLeastRemembered = 1 << 16;

  void see(const Unit& unit);

  HalfLifeSearch search_{kLeastRemembered};
  ReuseValueOrder order_{search_.best(), kLeastRemembered};
  Bytes bytes_ = 0;
};

}  // namespace modalkv
