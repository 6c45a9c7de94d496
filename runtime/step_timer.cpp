#include "runtime/step_timer.hpp"

#include <algorithm>

namespace modalkv {

void StepTimer::restart(Nanos now_ns) {
  pipeline_ = Pipeline::idle_at(now_ns);
  previous_begin_ns_ = now_ns;
  d2h_free_ns_ = std::max(d2h_free_ns_, now_ns);
  d2h_before_ns_ = std::max(d2h_before_ns_, now_ns);
}

StepRecord StepTimer::run(const StepProblem& problem, const Placement& placement,
                          const Transfers& transfers) {
  const CostModel& cost = *problem.cost;
  const LayerLoads loads = layer_loads(problem, placement);
  const MemoryUse use = memory_use(problem, loads, placement.staging_slots);
  auto times = layer_times(problem, loads);
  const Bytes piece = CostModel::piece_bytes(problem.demand.groups[0].high_bytes);
  Nanos load_ns = cost.h2d_ns(transfers.to_device_bytes, piece);
  Nanos d2h_ns = cost.d2h_ns(transfers.to_host_bytes, piece);

  Nanos h2d_ns = load_ns;
  for (const LayerKind kind : kAllLayerKinds)
    h2d_ns += times[static_cast<std::size_t>(kind)].copy_ns * problem.layers_of(kind);
  if (h2d_ns > 0 && d2h_ns > 0) {
    const double stretch = static_cast<double>(cost.with_opposing_traffic(h2d_ns, d2h_ns)) /
                           static_cast<double>(h2d_ns);
    d2h_ns = cost.with_opposing_traffic(d2h_ns, h2d_ns);
    load_ns = static_cast<Nanos>(static_cast<double>(load_ns) * stretch);
    for (LayerTimes& layer : times)
      layer.copy_ns = static_cast<Nanos>(static_cast<double>(layer.copy_ns) * stretch);
  }
  auto layers = in_order(problem, times);
  for (LayerTimes& layer : layers) layer.copy_ns += load_ns / problem.layers;

  // Prefetch reaches back into the step before, no further; what is loaded for this step alone
  // starts with it. And what left the GPU two steps ago must be gone before its room is used again.
  pipeline_.gpu_free_ns = std::max(pipeline_.gpu_free_ns, d2h_before_ns_);
  const Nanos earliest_ns = load_ns > 0 ? pipeline_.gpu_free_ns : previous_begin_ns_;
  pipeline_.link_free_ns = std::max(pipeline_.link_free_ns, earliest_ns);
  const StepTiming timing =
      run_step(pipeline_, layers, problem.compute.step_ns + cost.encode_ns(transfers.encode_bytes),
               cost.handover_ns(), placement.staging_slots);
  previous_begin_ns_ = timing.begin_ns;
  d2h_before_ns_ = d2h_free_ns_;
  if (d2h_ns > 0) d2h_free_ns_ = std::max(d2h_free_ns_, timing.begin_ns) + d2h_ns;
  return {.begin_ns = timing.begin_ns,
          .end_ns = timing.end_ns,
          .gpu_busy_ns = timing.gpu_busy_ns,
          .h2d_busy_ns = timing.link_busy_ns,
          .d2h_busy_ns = d2h_ns,
          .cpu_busy_ns = timing.cpu_busy_ns,
          .device_kv_bytes = use.resident_bytes,
          .staging_bytes = use.staging_bytes,
          .host_kv_bytes = use.host_bytes,
          .h2d_bytes = streamed_bytes(problem, loads) + transfers.to_device_bytes,
          .d2h_bytes = transfers.to_host_bytes};
}

}  // namespace modalkv
