#include "scheduler/reuse_value_order.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

namespace modalkv {
namespace {

// Mitchell, "Computer multiplication and division using binary logarithms" (1962): linear between
// powers of two. Monotone, at most 0.09 off, and unlike the library's the same on every processor.
double log2_near(double x) {
  if (x <= 0) return -std::numeric_limits<double>::infinity();
  int exponent = 0;
  const double mantissa = std::frexp(x, &exponent);  // in [0.5, 1)
  return exponent - 2 + 2 * mantissa;
}

// Its inverse, for x <= 0.
double exp2_near(double x) {
  const double whole = std::floor(std::max(x, -1000.0));
  return std::ldexp(1 + std::max(x, -1000.0) - whole, static_cast<int>(whole));
}

}  // namespace

void ReuseValueOrder::ReuseShare::add(bool first_reuse) {
  constexpr std::int64_t kMemory = 1 << 14;
  ++(first_reuse ? reused : added);
  if (added < kMemory) return;
  added /= 2;
  reused /= 2;
}

ReuseValueOrder::ReuseShare& ReuseValueOrder::kind(const EvictionFacts& facts) {
  const auto bits = static_cast<unsigned>(payload_bits(facts.format.key.number));  // 2, 4, 8, 16
  return kinds_[4 * static_cast<std::size_t>(facts.token_class) +
                static_cast<std::size_t>(std::countr_zero(bits)) - 1];
}

double ReuseValueOrder::priority(const Unit& unit) const {
  const double saved_ns_per_byte =
      static_cast<double>(unit.facts.reload_ns) / static_cast<double>(unit.facts.bytes);
  return log2_near(unit.uses * saved_ns_per_byte) + unit.used_at;
}

void ReuseValueOrder::count_use(Unit& unit) {
  if (!unit.reused) {
    unit.reused = true;
    kind(unit.facts).add(true);
    all_.add(true);
  }
  unit.uses = 1 + unit.uses * exp2_near(unit.used_at - now_);
  unit.used_at = now_;
}

void ReuseValueOrder::add(Unit& unit) {
  ++units_;
  const auto known = departed_.find(unit.id);
  if (known != departed_.end()) {
    unit.uses = known->second.uses;
    unit.used_at = known->second.used_at;
    unit.reused = known->second.reused;
    departed_.erase(known);
    count_use(unit);
  } else {
    // A new one is worth one use, more or less as its kind is used again more or less than all.
    unit.uses = kind(unit.facts).estimate() / all_.estimate();
    unit.used_at = now_;
    kind(unit.facts).add(false);
    all_.add(false);
  }
  unit.priority = priority(unit);
  unit.used = ++uses_;
  ranking_.insert(unit);
}

void ReuseValueOrder::use(Unit& unit) {
  count_use(unit);
  ranking_.move(unit, priority(unit), ++uses_);
}

void ReuseValueOrder::evict(Unit& unit) {
  --units_;
  departed_[unit.id] = {unit.uses, unit.used_at, unit.reused, ++departures_};
  departure_order_.push_back({unit.id, departures_});
  while (departure_order_.size() > std::max(units_, least_remembered_)) {
    const Departure oldest = departure_order_.front();
    departure_order_.pop_front();
    const auto found = departed_.find(oldest.id);
    if (found != departed_.end() && found->second.departure == oldest.number)
      departed_.erase(found);
  }
}

}  // namespace modalkv
