// Where the KV of a batch lives and what that costs a step. A placement gives, for each group of
// tokens that share permissions, the share handled by each action; it is fluid: the runtime rounds
// it to pages.
#pragma once

#include <array>
#include <cstdint>
#include <optional>

#include "modalkv/plan.hpp"
#include "modalkv/policy.hpp"
#include "scheduler/cost_model.hpp"
#include "scheduler/selection.hpp"
#include "scheduler/step_recurrence.hpp"

namespace modalkv {

/// Layers of a policy are of two kinds: planned ones, and those held in high precision throughout.
enum class LayerKind : std::uint8_t { planned, held_high };

inline constexpr int kLayerKinds = 2;
inline constexpr LayerKind kAllLayerKinds[] = {LayerKind::planned, LayerKind::held_high};
inline constexpr int kMaxGroups = kPermissions + 1;  // three in planned layers, one in held ones

/// Tokens of a batch with the same permission in the same kind of layer.
struct DemandGroup {
  LayerKind kind = LayerKind::planned;
  Tokens tokens = 0;
  Tokens encoded = 0;    ///< of them, already compressed: they cannot come back
  Bytes high_bytes = 0;  ///< of a token in a layer
  Bytes low_bytes = 0;   ///< the same compressed; 0: may not be
};

/// The KV of the batch of a step.
struct Demand {
  std::array<DemandGroup, kMaxGroups> groups{};
  int group_count = 0;
};

using Shares = std::array<double, kActions>;      // of a group, adding up to 1
using TokenSplit = std::array<Tokens, kActions>;  // of a group, adding up to its tokens

struct Placement {
  std::array<Shares, kMaxGroups> shares{};
  int staging_slots = 2;
};

/// Everything that a step's time and memory depend on, apart from the placement.
struct StepProblem {
  const CostModel* cost = nullptr;
  const PrecisionPolicy* policy = nullptr;
  int layers = 0;
  ComputeTimes compute{};
  double decode_share = 1;  ///< of the KV tokens, read by decoding sequences
  double stored_share = 1;  ///< of the KV tokens, from earlier steps: only they can be streamed
  Demand demand{};
  Bytes device_budget_bytes = 0;
  Bytes host_budget_bytes = 0;

  int layers_of(LayerKind kind) const;
  LayerKind kind_of(int layer) const;
};

/// Bytes of one layer.
struct LayerLoad {
  Bytes resident_bytes = 0;
  Bytes streamed_high_bytes = 0;
  Bytes streamed_low_bytes = 0;
  Bytes cpu_bytes = 0;
  /// Contiguous pieces, for the link's size table.
  Bytes high_piece_bytes = 0;
  Bytes low_piece_bytes = 0;

  Bytes streamed_bytes() const { return streamed_high_bytes + streamed_low_bytes; }
};

using LayerLoads = std::array<LayerLoad, kLayerKinds>;

struct MemoryUse {
  Bytes resident_bytes = 0;
  Bytes staging_bytes = 0;
  Bytes host_bytes = 0;

  Bytes device_bytes() const { return resident_bytes + staging_bytes; }
};

/// Everything resident in 16 bits, or where the policy forbids that, everything streamed.
Placement first_choice(const StepProblem& problem);

/// Whole tokens of a group by action; exact where a share is 1.
TokenSplit split_tokens(const DemandGroup& group, const Shares& shares);

LayerLoads layer_loads(const StepProblem& problem, const Placement& placement);
/// Host to device in this step, all layers.
Bytes streamed_bytes(const StepProblem& problem, const LayerLoads& loads);
MemoryUse memory_use(const StepProblem& problem, const LayerLoads& loads, int staging_slots);
bool fits(const StepProblem& problem, const MemoryUse& use);
bool placement_fits(const StepProblem& problem, const Placement& placement);

/// Durations of a layer of each kind.
std::array<LayerTimes, kLayerKinds> layer_times(const StepProblem& problem,
                                                const LayerLoads& loads);
/// The step's layers from first to last: held ones, planned ones, held ones.
std::array<LayerTimes, 3> in_order(const StepProblem& problem,
                                   const std::array<LayerTimes, kLayerKinds>& times);

/// The placement that needs the least GPU memory: everything as compact as permitted, as much on
/// the host as it holds. Nothing where even that does not fit.
std::optional<Placement> most_compact(const StepProblem& problem);
/// Whether `most_compact` exists, at less cost.
bool can_fit(const StepProblem& problem);

/// Time of a step among many alike under this placement.
Nanos steady_step_ns(const StepProblem& problem, const Placement& placement);

}  // namespace modalkv
