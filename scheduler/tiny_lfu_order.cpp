#include "scheduler/tiny_lfu_order.hpp"

namespace modalkv {
namespace {

constexpr std::size_t kCountersOfUnit = 4;  // in a row: fewer are often shared
constexpr double kWindowShare = 0.01;       // of all bytes
constexpr double kProvenShare = 0.8;        // of what is not in the window

}  // namespace

void TinyLfuOrder::move_to(Part part, Unit& unit) {
  const bool ranked = unit.ranked;
  if (ranked) of(unit.part).ranking.remove(unit);
  of(unit.part).bytes -= unit.facts.bytes;
  unit.part = part;
  unit.used = ++uses_;
  of(part).bytes += unit.facts.bytes;
  if (ranked) of(part).ranking.insert(unit);
}

// A part keeps one unit however large it is.
void TinyLfuOrder::shrink(Part from, double most_bytes, Part to) {
  while (static_cast<double>(of(from).bytes) > most_bytes && of(from).ranking.size() > 1)
    move_to(to, *of(from).ranking.lowest());
}

void TinyLfuOrder::add(Unit& unit) {
  bytes_ += unit.facts.bytes;
  sketch_.reserve(kCountersOfUnit * ++units_);
  sketch_.add(key(unit));
  unit.used = ++uses_;
  of(Part::window).bytes += unit.facts.bytes;
  of(Part::window).ranking.insert(unit);
  shrink(Part::window, kWindowShare * static_cast<double>(bytes_), Part::unproven);
}

void TinyLfuOrder::use(Unit& unit) {
  sketch_.add(key(unit));
  if (unit.part != Part::unproven) {
    of(unit.part).ranking.move(unit, 0, ++uses_);
    return;
  }
  move_to(Part::proven, unit);
  shrink(Part::proven, kProvenShare * static_cast<double>(bytes_ - of(Part::window).bytes),
         Part::unproven);
}

void TinyLfuOrder::erase(Unit& unit) {
  of(unit.part).bytes -= unit.facts.bytes;
  bytes_ -= unit.facts.bytes;
  --units_;
}

TinyLfuOrder::Unit* TinyLfuOrder::lowest() const {
  Unit* candidate = of(Part::window).ranking.lowest();
  Unit* rival = of(Part::unproven).ranking.lowest();
  if (!rival) rival = of(Part::proven).ranking.lowest();
  if (!candidate || !rival) return candidate ? candidate : rival;
  return sketch_.count(key(*candidate)) > sketch_.count(key(*rival)) ? rival : candidate;
}

}  // namespace modalkv
