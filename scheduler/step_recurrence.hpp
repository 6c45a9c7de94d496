// The exact time of a step: the longest path over link, CPU and GPU with a ring of staging slots.
// O(layers), O(1) where nothing is streamed and the CPU attends to nothing.
//
// Layer l: its streamed KV is copied into a slot once the link is free and the slot's last reader
// is done, up to `slots` layers ahead and across the end of a step; queries exist after `before`;
// the GPU attends to resident KV meanwhile, then to the slot; the CPU attends on its own and hands
// over; the layer ends after the merge.
#pragma once

#include <array>
#include <span>

#include "modalkv/units.hpp"

namespace modalkv {

inline constexpr int kMaxStagingSlots = 8;

/// Durations of one layer of a step, or of each of several alike in a row.
struct LayerTimes {
  Nanos before_attention_ns = 0;
  Nanos attend_resident_ns = 0;  ///< resident KV and the chunk's own tokens
  Nanos attend_streamed_ns = 0;  ///< from the staging slot
  Nanos after_attention_ns = 0;
  Nanos copy_ns = 0;  ///< host to device, into the slot; 0: nothing streamed
  Nanos cpu_ns = 0;   ///< CPU attention; 0: none
  int layers = 1;     ///< in a row
};

/// When each processor is next free, in absolute virtual time. Carried from step to step.
struct Pipeline {
  Nanos gpu_free_ns = 0;
  Nanos link_free_ns = 0;
  Nanos cpu_free_ns = 0;
  std::array<Nanos, kMaxStagingSlots> slot_free_ns{};
  int next_slot = 0;

  /// Everything free at `now_ns`, nothing in flight.
  static Pipeline idle_at(Nanos now_ns);
};

struct StepTiming {
  Nanos begin_ns = 0;
  Nanos end_ns = 0;
  Nanos gpu_busy_ns = 0;
  Nanos link_busy_ns = 0;
  Nanos cpu_busy_ns = 0;
};

/// Runs one step. `slots` is in [1, kMaxStagingSlots]; `step_ns` is GPU and host time once a step,
/// after the layers.
StepTiming run_step(Pipeline& pipeline, std::span<const LayerTimes> layers, Nanos step_ns,
                    Nanos handover_ns, int slots);

/// Time of a step among many alike: from the end of one to the end of the next.
Nanos steady_step_ns(std::span<const LayerTimes> layers, Nanos step_ns, Nanos handover_ns,
                     int slots);

}  // namespace modalkv
