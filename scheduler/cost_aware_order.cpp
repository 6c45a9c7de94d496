#include "scheduler/cost_aware_order.hpp"

namespace modalkv {

void CostAwareOrder::see(const Unit& unit) {
  search_.see(unit.id, unit.facts, bytes_);
  order_.set_half_life(search_.best());
}

void CostAwareOrder::add(Unit& unit) {
  bytes_ += unit.facts.bytes;
  order_.advance(static_cast<double>(unit.facts.bytes) / static_cast<double>(bytes_));
  order_.add(unit);
  see(unit);
}

void CostAwareOrder::use(Unit& unit) {
  order_.use(unit);
  see(unit);
}

void CostAwareOrder::evict(Unit& unit) {
  bytes_ -= unit.facts.bytes;
  order_.evict(unit);
}

void CostAwareOrder::erase(Unit& unit) {
  bytes_ -= unit.facts.bytes;
  order_.erase(unit);
  search_.erase(unit.id);
}

}  // namespace modalkv
