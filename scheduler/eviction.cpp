#include "scheduler/eviction.hpp"

namespace modalkv {

Eviction::Eviction(EvictionPolicy policy) {
  if (policy == EvictionPolicy::tiny_lfu) ledger_.emplace<EvictionLedger<TinyLfuOrder>>();
  if (policy == EvictionPolicy::cost_aware) ledger_.emplace<EvictionLedger<CostAwareOrder>>();
}

void Eviction::insert(UnitId id, const EvictionFacts& facts) {
  std::visit([&](auto& ledger) { ledger.insert(id, facts); }, ledger_);
}
void Eviction::touch(UnitId id) {
  std::visit([&](auto& ledger) { ledger.touch(id); }, ledger_);
}
void Eviction::reprice(UnitId id, Nanos reload_ns) {
  std::visit([&](auto& ledger) { ledger.reprice(id, reload_ns); }, ledger_);
}
void Eviction::pin(UnitId id) {
  std::visit([&](auto& ledger) { ledger.pin(id); }, ledger_);
}
void Eviction::unpin(UnitId id) {
  std::visit([&](auto& ledger) { ledger.unpin(id); }, ledger_);
}
std::vector<UnitId> Eviction::prepare(Bytes bytes_needed) {
  return std::visit([&](auto& ledger) { return ledger.prepare(bytes_needed); }, ledger_);
}
void Eviction::complete(UnitId id) {
  std::visit([&](auto& ledger) { ledger.complete(id); }, ledger_);
}
void Eviction::cancel(UnitId id) {
  std::visit([&](auto& ledger) { ledger.cancel(id); }, ledger_);
}
void Eviction::erase(UnitId id) {
  std::visit([&](auto& ledger) { ledger.erase(id); }, ledger_);
}

bool Eviction::contains(UnitId id) const {
  return std::visit([&](const auto& ledger) { return ledger.contains(id); }, ledger_);
}
std::size_t Eviction::size() const {
  return std::visit([](const auto& ledger) { return ledger.size(); }, ledger_);
}
Bytes Eviction::held_bytes() const {
  return std::visit([](const auto& ledger) { return ledger.held_bytes(); }, ledger_);
}
Bytes Eviction::evictable_bytes() const {
  return std::visit([](const auto& ledger) { return ledger.evictable_bytes(); }, ledger_);
}

}  // namespace modalkv
