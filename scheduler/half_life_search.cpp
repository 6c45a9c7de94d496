#include "scheduler/half_life_search.hpp"

#include <array>

namespace modalkv {
namespace {

constexpr std::array kHalfLives = {0.0625, 0.25, 1.0, 4.0, 16.0};  // in turnovers
constexpr std::int64_t kUnitsPerSample = 4;
constexpr double kGain = 0.995;  // a better one is better by so much

bool sampled(UnitId id) {
  const std::uint64_t mixed = static_cast<std::uint64_t>(id) * 0x9e3779b97f4a7c15u;
  return (mixed >> 32) % kUnitsPerSample == 0;
}

}  // namespace

HalfLifeSearch::HalfLifeSearch(std::size_t least_remembered) {
  for (const double half_life : kHalfLives)
    tries_.emplace_back(half_life, least_remembered / kUnitsPerSample);
}

void HalfLifeSearch::see(Try& tried, UnitId id, const EvictionFacts& facts, Bytes tier_bytes) {
  const auto [found, is_new] = tried.units.try_emplace(id);
  ReuseValueOrder::Unit& unit = found->second;
  if (!is_new) {
    unit.facts.reload_ns = facts.reload_ns;
    tried.order.use(unit);
    return;
  }
  unit.id = id;
  unit.facts = facts;
  tried.bytes += facts.bytes;
  tried.reload_ns += static_cast<double>(facts.reload_ns);
  tried.order.advance(static_cast<double>(kUnitsPerSample * facts.bytes) /
                      static_cast<double>(tier_bytes));
  tried.order.add(unit);
  while (4 * kUnitsPerSample * tried.bytes > 3 * tier_bytes && tried.units.size() > 1) {
    ReuseValueOrder::Unit& lowest = *tried.order.lowest();
    tried.order.hold(lowest);
    tried.order.evict(lowest);
    tried.bytes -= lowest.facts.bytes;
    tried.units.erase(UnitId{lowest.id});  // a copy: the unit goes with it
  }
}

void HalfLifeSearch::see(UnitId id, const EvictionFacts& facts, Bytes tier_bytes) {
  if (!sampled(id)) return;
  const auto traffic = static_cast<double>(kUnitsPerSample * facts.bytes);
  const double kept = 1 - traffic / (static_cast<double>(tier_bytes) + traffic);
  for (Try& tried : tries_) {
    see(tried, id, facts, tier_bytes);
    tried.reload_ns *= kept;
  }
  const double to_beat = kGain * tries_[best_].reload_ns;
  std::size_t least = best_;
  for (std::size_t i = 0; i < tries_.size(); ++i)
    if (tries_[i].reload_ns < to_beat && tries_[i].reload_ns < tries_[least].reload_ns) least = i;
  best_ = least;
}

void HalfLifeSearch::erase(UnitId id) {
  for (Try& tried : tries_) {
    const auto found = tried.units.find(id);
    if (found == tried.units.end()) continue;
    tried.order.hold(found->second);
    tried.order.erase(found->second);
    tried.bytes -= found->second.facts.bytes;
    tried.units.erase(found);
  }
}

}  // namespace modalkv
