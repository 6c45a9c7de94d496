#include "scheduler/step_recurrence.hpp"

#include <algorithm>

namespace modalkv {

Pipeline Pipeline::idle_at(Nanos now_ns) {
  Pipeline pipeline{.gpu_free_ns = now_ns, .link_free_ns = now_ns, .cpu_free_ns = now_ns};
  pipeline.slot_free_ns.fill(now_ns);
  return pipeline;
}

StepTiming run_step(Pipeline& pipeline, std::span<const LayerTimes> layers, Nanos step_ns,
                    Nanos handover_ns, int slots) {
  StepTiming timing{.begin_ns = pipeline.gpu_free_ns};
  Nanos gpu = pipeline.gpu_free_ns;
  for (const LayerTimes& layer : layers) {
    const Nanos on_gpu =
        layer.before_attention_ns + layer.attend_resident_ns + layer.after_attention_ns;
    timing.gpu_busy_ns += layer.layers * on_gpu;
    if (layer.copy_ns == 0 && layer.cpu_ns == 0) {
      gpu += layer.layers * on_gpu;
      continue;
    }
    for (int l = 0; l < layer.layers; ++l) {
      gpu += layer.before_attention_ns;
      Nanos cpu_done = 0;
      if (layer.cpu_ns > 0) {
        pipeline.cpu_free_ns = std::max(gpu + handover_ns, pipeline.cpu_free_ns) + layer.cpu_ns;
        cpu_done = pipeline.cpu_free_ns + handover_ns;
        timing.cpu_busy_ns += layer.cpu_ns;
      }
      gpu += layer.attend_resident_ns;
      if (layer.copy_ns > 0) {
        Nanos& slot_free = pipeline.slot_free_ns[static_cast<std::size_t>(pipeline.next_slot)];
        pipeline.next_slot = (pipeline.next_slot + 1) % slots;
        pipeline.link_free_ns = std::max(pipeline.link_free_ns, slot_free) + layer.copy_ns;
        gpu = std::max(gpu, pipeline.link_free_ns) + layer.attend_streamed_ns;
        slot_free = gpu;
        timing.link_busy_ns += layer.copy_ns;
        timing.gpu_busy_ns += layer.attend_streamed_ns;
      }
      gpu = std::max(gpu, cpu_done) + layer.after_attention_ns;
    }
  }
  timing.gpu_busy_ns += step_ns;
  pipeline.gpu_free_ns = gpu + step_ns;
  timing.end_ns = pipeline.gpu_free_ns;
  return timing;
}

Nanos steady_step_ns(std::span<const LayerTimes> layers, Nanos step_ns, Nanos handover_ns,
                     int slots) {
  Pipeline pipeline = Pipeline::idle_at(0);
  run_step(pipeline, layers, step_ns, handover_ns, slots);
  const Nanos warm = pipeline.gpu_free_ns;
  run_step(pipeline, layers, step_ns, handover_ns, slots);
  return pipeline.gpu_free_ns - warm;
}

}  // namespace modalkv
