#include "scheduler/kv_state.hpp"

#include <algorithm>

namespace modalkv {
namespace {

Tokens scaled(Tokens value, Tokens numerator, Tokens denominator) {
  return static_cast<Tokens>(static_cast<double>(value) * static_cast<double>(numerator) /
                             static_cast<double>(denominator));
}

}  // namespace

void KvState::annotate(Demand& demand) const {
  for (std::size_t g = 0; g < groups_.size(); ++g)
    demand.groups[g].encoded = std::min(groups_[g].encoded, demand.groups[g].tokens);
}

void KvState::remove(const std::array<Tokens, kMaxGroups>& before,
                     const std::array<Tokens, kMaxGroups>& left) {
  for (std::size_t g = 0; g < groups_.size(); ++g) {
    if (before[g] <= 0) continue;
    const Tokens stay = std::max<Tokens>(0, before[g] - left[g]);
    Group& group = groups_[g];
    for (Tokens* count : {&group.encoded, &group.host_high, &group.host_low})
      *count = scaled(*count, stay, before[g]);
  }
}

Migration KvState::settle(const StepProblem& problem, const Placement& placement) {
  Migration migration;
  for (int g = 0; g < problem.demand.group_count; ++g) {
    const auto i = static_cast<std::size_t>(g);
    const DemandGroup& demand = problem.demand.groups[i];
    Group& group = groups_[i];
    const TokenSplit split = split_tokens(demand, placement.shares[i]);
    const auto of = [&](Action action) { return split[static_cast<std::size_t>(action)]; };
    const Bytes layers = problem.layers_of(demand.kind);

    const Tokens low = of(Action::resident_low) + of(Action::streamed_low) + of(Action::cpu_low);
    if (low > group.encoded)
      migration.encode_bytes +=
          (low - group.encoded) * (demand.high_bytes + demand.low_bytes) * layers;
    group.encoded = low;

    const auto move = [&](Tokens& have, Tokens want, Bytes token_bytes) {
      const Bytes bytes = (want - have) * token_bytes * layers;
      (bytes > 0 ? migration.to_host_bytes : migration.to_device_bytes) +=
          bytes > 0 ? bytes : -bytes;
      have = want;
    };
    move(group.host_high, of(Action::streamed_high) + of(Action::cpu_high), demand.high_bytes);
    move(group.host_low, of(Action::streamed_low) + of(Action::cpu_low), demand.low_bytes);
  }
  return migration;
}

}  // namespace modalkv
