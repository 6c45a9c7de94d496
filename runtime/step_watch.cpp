#include "runtime/step_watch.hpp"

#include <algorithm>

namespace modalkv {
namespace {

QueueId queue(const Device& device, QueueKind kind) {
  if (const auto found = find_queue(device, kind)) return *found;
  throw Error("runtime: a device needs queues to compute and to copy");
}

}  // namespace

StepWatch::StepWatch(TracingDevice& device, const RuntimeConfig& config)
    : device_(device),
      compute_(queue(device, QueueKind::compute)),
      h2d_(queue(device, QueueKind::h2d)),
      layers_(config.layers),
      may_replan_(config.tensor_parallel_ranks == 1),
      replanner_(config.policy),
      clock_(config.layers) {}

// A step goes through the layers, at each of them appending before attending.
void StepWatch::before(int layer, bool attends) {
  if (!device_.recording()) return;
  const bool goes_back = layer < label_.layer || (layer == label_.layer && attends_ && !attends);
  if (goes_back) ++label_.step;
  label_.layer = layer;
  attends_ = attends;
  device_.label(label_);
  if (layer == 0) called_at_ns_ = device_.now();
}

void StepWatch::attended(std::span<const AttendRequest> batch, int layer) {
  if (!device_.recording()) return;
  const bool decodes = std::all_of(
      batch.begin(), batch.end(), [](const AttendRequest& request) { return request.tokens == 1; });
  clock_.attended(layer, decodes, called_at_ns_, device_.newest(compute_));
}

std::optional<Replanner::Planned> StepWatch::plan(const ModelGeometry& model,
                                                  const HardwareProfile& hardware,
                                                  const RunningBatch& batch) {
  device_.record(true);
  link_before_ = device_.use()[h2d_.index];
  return replanner_.plan(model, hardware, batch);
}

bool StepWatch::take(Nanos step_ns, const RunningBatch& batch) {
  const bool drifts = replanner_.observe(step_ns, batch);
  const Nanos predicted_ns = replanner_.has_planned() ? replanner_.predicted_ns() : 0;
  ++steps_.steps;
  steps_.actual_ns += step_ns;
  steps_.predicted_ns += predicted_ns;
  steps_.last_actual_ns = step_ns;
  steps_.last_predicted_ns = predicted_ns;
  return drifts;
}

std::optional<Replanner::Planned> StepWatch::replan(const RunningBatch& batch) {
  const QueueUse& now = device_.use()[h2d_.index];
  const LinkMeasure link{now.bytes - link_before_.bytes, now.ops - link_before_.ops,
                         now.busy_ns - link_before_.busy_ns};
  link_before_ = now;
  return replanner_.replan(batch, link);
}

std::vector<TracedGroup> StepWatch::groups(int steps) const {
  const auto shown = static_cast<std::uint64_t>(std::max(steps, 1));
  return device_.groups(label_.step >= shown ? label_.step - shown + 1 : 0);
}

void StepWatch::fill(RuntimeMetrics& metrics) const {
  metrics.measured = device_.recording();
  for (std::size_t q = 0; q < device_.use().size(); ++q) {
    const QueueInfo& info = device_.queues()[q];
    metrics.queues.push_back({info.kind, info.numa_node, device_.use()[q]});
  }
  metrics.stalls = device_.stalls();
  metrics.steps = steps_;
  metrics.plans = replanner_.counts();
  metrics.drifting = replanner_.drifting();
}

}  // namespace modalkv
