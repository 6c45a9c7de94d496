// A plan is data: what each layer keeps, streams or leaves to the CPU, for one step of one batch.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "modalkv/units.hpp"

namespace modalkv {

/// What is done with KV in a step.
enum class Action : std::uint8_t {
  resident_high,  ///< in GPU memory, 16 bits
  resident_low,   ///< in GPU memory, compressed
  streamed_high,  ///< in pinned host memory, 16 bits, copied to staging in this step
  streamed_low,   ///< in pinned host memory, compressed, copied to staging in this step
  cpu_high,       ///< in host memory, 16 bits, attended there
  cpu_low,        ///< in host memory, compressed, attended there
};

inline constexpr int kActions = 6;

constexpr std::string_view name(Action action) {
  constexpr std::string_view names[] = {"resident 16-bit", "resident compressed",
                                        "streamed 16-bit", "streamed compressed",
                                        "CPU 16-bit",      "CPU compressed"};
  return names[static_cast<std::uint8_t>(action)];
}

constexpr bool is_low(Action action) {
  return action == Action::resident_low || action == Action::streamed_low ||
         action == Action::cpu_low;
}
constexpr bool is_resident(Action action) {
  return action == Action::resident_high || action == Action::resident_low;
}
constexpr bool is_streamed(Action action) {
  return action == Action::streamed_high || action == Action::streamed_low;
}
constexpr bool is_on_cpu(Action action) {
  return action == Action::cpu_high || action == Action::cpu_low;
}
/// The action in the same place, compressed or not.
constexpr Action place_of(Action action, bool low) {
  if (is_resident(action)) return low ? Action::resident_low : Action::resident_high;
  if (is_streamed(action)) return low ? Action::streamed_low : Action::streamed_high;
  return low ? Action::cpu_low : Action::cpu_high;
}

/// What limits a step.
enum class Bottleneck : std::uint8_t { gpu, link, cpu };

constexpr std::string_view name(Bottleneck bottleneck) {
  constexpr std::string_view names[] = {"GPU", "link", "CPU attention"};
  return names[static_cast<std::uint8_t>(bottleneck)];
}

struct ActionLoad {
  Tokens tokens = 0;  ///< of the whole batch
  Bytes bytes = 0;
};

struct LayerPlan {
  std::array<ActionLoad, kActions> actions{};

  constexpr ActionLoad& operator[](Action action) {
    return actions[static_cast<std::size_t>(action)];
  }
  constexpr const ActionLoad& operator[](Action action) const {
    return actions[static_cast<std::size_t>(action)];
  }
};

struct Plan {
  std::vector<LayerPlan> layers{};
  int staging_slots =
      0;  ///< slots of the staging ring, each as large as the largest streamed layer
  Bytes staging_bytes = 0;
  Bytes device_bytes = 0;  ///< resident KV and staging
  Bytes host_bytes = 0;
  Nanos step_ns = 0;         ///< predicted by the exact recurrence
  Nanos lower_bound_ns = 0;  ///< no plan of this policy can be faster (0: not computed)
  Bottleneck bottleneck = Bottleneck::gpu;
  std::string reason{};  ///< one line: why this plan and not another
};

}  // namespace modalkv
