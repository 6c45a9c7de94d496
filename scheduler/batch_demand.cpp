#include "scheduler/batch_demand.hpp"

#include <algorithm>

#include "modalkv/page.hpp"

namespace modalkv {
namespace {

// Of a token in a layer, with its part of what the page needs for itself.
Bytes paged_token_bytes(const ModelGeometry& model, const KvFormat& format) {
  const PageShape shape{kPageTokens, model.kv_heads, model.head_dim, format};
  return divide_up(page_bytes(shape), kPageTokens);
}

}  // namespace

BatchDemand::BatchDemand(const ModelGeometry& model, const PrecisionPolicy& policy,
                         const CostModel& cost, double memory_utilization)
    : policy_(policy),
      cost_(cost),
      layers_(model.layers),
      device_budget_bytes_(cost.device_kv_budget_bytes(memory_utilization)),
      host_budget_bytes_(policy.places.streamed || policy.places.cpu ? cost.host_kv_budget_bytes()
                                                                     : 0),
      high_bytes_(paged_token_bytes(model, policy.high)) {
  const auto low = [&](const std::optional<KvFormat>& format) {
    return format ? paged_token_bytes(model, *format) : 0;
  };
  low_bytes_ = {0, low(policy.text_low), low(policy.visual_low)};
}

void BatchDemand::add(GroupTokens& tokens, const Sequence& sequence, Tokens held) const {
  const Tokens visual = std::min(sequence.visual, held);
  const PermissionCounts counts = count_permissions(policy_, held - visual, visual);
  tokens[0] += counts.high_only;
  tokens[1] += counts.text_low;
  tokens[2] += counts.visual_low;
  tokens[kPermissions] += held;
}

StepProblem BatchDemand::problem(const GroupTokens& tokens) const {
  StepProblem problem{.cost = &cost_,
                      .policy = &policy_,
                      .layers = layers_,
                      .device_budget_bytes = device_budget_bytes_,
                      .host_budget_bytes = host_budget_bytes_};
  for (std::size_t p = 0; p < kPermissions; ++p)
    problem.demand.groups[p] = {
        .tokens = tokens[p], .high_bytes = high_bytes_, .low_bytes = low_bytes_[p]};
  problem.demand.group_count = kPermissions;
  if (problem.layers_of(LayerKind::held_high) > 0) {
    problem.demand.groups[kPermissions] = {.kind = LayerKind::held_high,
                                           .tokens = tokens[kPermissions],
                                           .high_bytes = high_bytes_,
                                           .low_bytes = 0};
    problem.demand.group_count = kMaxGroups;
  }
  return problem;
}

Bytes BatchDemand::stored_token_bytes(Permission permission) const {
  const Bytes low = low_bytes_[static_cast<std::size_t>(permission)];
  return layers_ * (low > 0 ? low : high_bytes_);
}

}  // namespace modalkv
