#include "scheduler/placement.hpp"

#include <algorithm>
#include <cmath>

namespace modalkv {
namespace {

std::size_t index(Action action) {
  return static_cast<std::size_t>(action);
}
std::size_t index(LayerKind kind) {
  return static_cast<std::size_t>(kind);
}

}  // namespace

int StepProblem::layers_of(LayerKind kind) const {
  const int held = std::min(layers, policy->high_first_layers + policy->high_last_layers);
  return kind == LayerKind::held_high ? held : layers - held;
}

LayerKind StepProblem::kind_of(int layer) const {
  const bool held = layer < policy->high_first_layers || layer >= layers - policy->high_last_layers;
  return held ? LayerKind::held_high : LayerKind::planned;
}

Placement first_choice(const StepProblem& problem) {
  Placement placement;
  const auto& places = problem.policy->places;
  for (int g = 0; g < problem.demand.group_count; ++g) {
    const auto i = static_cast<std::size_t>(g);
    const DemandGroup& group = problem.demand.groups[i];
    const double low = group.tokens > 0
                           ? static_cast<double>(group.encoded) / static_cast<double>(group.tokens)
                           : 0;
    Shares& shares = placement.shares[i];
    shares[index(places.resident ? Action::resident_high : Action::streamed_high)] = 1 - low;
    shares[index(places.resident ? Action::resident_low : Action::streamed_low)] = low;
  }
  return placement;
}

TokenSplit split_tokens(const DemandGroup& group, const Shares& shares) {
  TokenSplit split{};
  double share = 0;
  Tokens given = 0;
  for (std::size_t a = 0; a < split.size(); ++a) {
    share += shares[a];
    const bool last = share >= 1 - 1e-9;
    // 0.2 x 5 is 1, not the double below it.
    const Tokens until =
        last ? group.tokens : static_cast<Tokens>(share * static_cast<double>(group.tokens) + 1e-6);
    split[a] = until - given;
    given = until;
    if (last) break;
  }
  return split;
}

LayerLoads layer_loads(const StepProblem& problem, const Placement& placement) {
  LayerLoads loads{};
  for (int g = 0; g < problem.demand.group_count; ++g) {
    const auto i = static_cast<std::size_t>(g);
    const DemandGroup& group = problem.demand.groups[i];
    if (group.tokens == 0) continue;
    const TokenSplit tokens = split_tokens(group, placement.shares[i]);
    const auto bytes = [&](Action high, Action low) {
      return tokens[index(high)] * group.high_bytes + tokens[index(low)] * group.low_bytes;
    };
    LayerLoad& load = loads[index(group.kind)];
    load.resident_bytes += bytes(Action::resident_high, Action::resident_low);
    load.cpu_bytes += bytes(Action::cpu_high, Action::cpu_low);
    load.streamed_high_bytes += tokens[index(Action::streamed_high)] * group.high_bytes;
    load.high_piece_bytes = CostModel::piece_bytes(group.high_bytes);
    if (group.low_bytes == 0) continue;
    load.streamed_low_bytes += tokens[index(Action::streamed_low)] * group.low_bytes;
    load.low_piece_bytes = CostModel::piece_bytes(group.low_bytes);
  }
  return loads;
}

MemoryUse memory_use(const StepProblem& problem, const LayerLoads& loads, int staging_slots) {
  MemoryUse use;
  Bytes slot_bytes = 0;
  for (const LayerKind kind : {LayerKind::planned, LayerKind::held_high}) {
    const LayerLoad& load = loads[index(kind)];
    const Bytes layers = problem.layers_of(kind);
    use.resident_bytes += layers * load.resident_bytes;
    use.host_bytes += layers * (load.streamed_bytes() + load.cpu_bytes);
    if (layers > 0) slot_bytes = std::max(slot_bytes, load.streamed_bytes());
  }
  use.staging_bytes = staging_slots * slot_bytes;
  return use;
}

bool fits(const StepProblem& problem, const MemoryUse& use) {
  return use.device_bytes() <= problem.device_budget_bytes &&
         use.host_bytes <= problem.host_budget_bytes;
}

bool placement_fits(const StepProblem& problem, const Placement& placement) {
  return fits(problem,
              memory_use(problem, layer_loads(problem, placement), placement.staging_slots));
}

std::array<LayerTimes, kLayerKinds> layer_times(const StepProblem& problem,
                                                const LayerLoads& loads) {
  const CostModel& cost = *problem.cost;
  // Prefill reads its context too, but its arithmetic hides that (it is in fresh_attention).
  const auto read_ns = [&](Bytes bytes) {
    return cost.attend_ns(static_cast<Bytes>(static_cast<double>(bytes) * problem.decode_share));
  };
  // What this step computes is not fetched from anywhere.
  const auto stored = [&](Bytes bytes) {
    return static_cast<Bytes>(static_cast<double>(bytes) * problem.stored_share);
  };
  std::array<LayerTimes, kLayerKinds> times;
  for (std::size_t kind = 0; kind < times.size(); ++kind) {
    const LayerLoad& load = loads[kind];
    times[kind] = {
        .before_attention_ns = problem.compute.before_attention_ns,
        .attend_resident_ns = problem.compute.fresh_attention_ns + read_ns(load.resident_bytes),
        .attend_streamed_ns = read_ns(load.streamed_bytes()),
        .after_attention_ns = problem.compute.after_attention_ns,
        .copy_ns = cost.h2d_ns(stored(load.streamed_high_bytes), load.high_piece_bytes) +
                   cost.h2d_ns(stored(load.streamed_low_bytes), load.low_piece_bytes),
        .cpu_ns = cost.cpu_attend_ns(stored(load.cpu_bytes))};
  }
  return times;
}

std::array<LayerTimes, 3> in_order(const StepProblem& problem,
                                   const std::array<LayerTimes, kLayerKinds>& times) {
  const LayerTimes& held = times[index(LayerKind::held_high)];
  std::array<LayerTimes, 3> layers{held, times[index(LayerKind::planned)], held};
  layers[0].layers = std::min(problem.layers, problem.policy->high_first_layers);
  layers[1].layers = problem.layers_of(LayerKind::planned);
  layers[2].layers = problem.layers - layers[0].layers - layers[1].layers;
  return layers;
}

namespace {

// Of the most compact form: how much of it goes to the host. Nothing where it does not fit.
std::optional<double> compact_host_share(const StepProblem& problem) {
  const PlacePermissions& places = problem.policy->places;
  double total = 0, widest_layer = 0, rounding = 0;
  for (const LayerKind kind : {LayerKind::planned, LayerKind::held_high}) {
    const int layers = problem.layers_of(kind);
    double layer = 0;
    for (int g = 0; g < problem.demand.group_count; ++g) {
      const DemandGroup& group = problem.demand.groups[static_cast<std::size_t>(g)];
      if (group.kind != kind) continue;
      const Bytes bytes = group.low_bytes > 0 ? group.low_bytes : group.high_bytes;
      layer += static_cast<double>(group.tokens) * static_cast<double>(bytes);
      rounding += static_cast<double>(layers * bytes);
    }
    total += layers * layer;
    if (layers > 0) widest_layer = std::max(widest_layer, layer);
  }
  const auto device = static_cast<double>(problem.device_budget_bytes);
  if (places.resident && total <= device) return 0;
  if (!places.streamed && !places.cpu) return std::nullopt;
  // Shares become whole tokens: a token of each group may land on either side.
  const double host = static_cast<double>(problem.host_budget_bytes) - rounding;
  const double on_host = places.resident ? std::min(total, std::max(0.0, host)) : total;
  if (on_host > host && total > 0) return std::nullopt;
  const double share = total > 0 ? on_host / total : 0;
  // Two slots are the least that overlaps; CPU attention needs none.
  const double staging = places.cpu ? 0 : 2 * widest_layer * share;
  if (total - on_host + staging + rounding > device) return std::nullopt;
  return share;
}

}  // namespace

bool can_fit(const StepProblem& problem) {
  return compact_host_share(problem).has_value();
}

std::optional<Placement> most_compact(const StepProblem& problem) {
  const auto host_share = compact_host_share(problem);
  if (!host_share) return std::nullopt;
  const bool cpu = problem.policy->places.cpu;
  Placement placement;
  for (std::size_t g = 0; g < placement.shares.size(); ++g) {
    const bool low = problem.demand.groups[g].low_bytes > 0;
    Shares& shares = placement.shares[g];
    shares[index(low ? Action::resident_low : Action::resident_high)] = 1 - *host_share;
    if (cpu) {
      shares[index(low ? Action::cpu_low : Action::cpu_high)] = *host_share;
    } else {
      shares[index(low ? Action::streamed_low : Action::streamed_high)] = *host_share;
    }
  }
  return placement;
}

Bytes streamed_bytes(const StepProblem& problem, const LayerLoads& loads) {
  Bytes bytes = 0;
  for (const LayerKind kind : {LayerKind::planned, LayerKind::held_high})
    bytes += problem.layers_of(kind) *
             static_cast<Bytes>(static_cast<double>(loads[index(kind)].streamed_bytes()) *
                                problem.stored_share);
  return bytes;
}

Nanos steady_step_ns(const StepProblem& problem, const Placement& placement) {
  const auto times = layer_times(problem, layer_loads(problem, placement));
  return steady_step_ns(in_order(problem, times), problem.compute.step_ns,
                        problem.cost->handover_ns(), placement.staging_slots);
}

}  // namespace modalkv
