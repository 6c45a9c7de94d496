// What a runtime can be asked about while it runs, as a value, and as the text that Prometheus
// reads.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "modalkv/runtime.hpp"
#include "offload/tracing_device.hpp"
#include "runtime/disk_tier.hpp"
#include "runtime/kv_usage.hpp"
#include "runtime/replanner.hpp"

namespace modalkv {

/// Something that works, but not as well as it should.
struct DegradedMode {
  std::string_view mode;
  bool degraded = false;
};

struct QueueMetrics {
  QueueKind kind = QueueKind::compute;
  int node = 0;  ///< of a host queue
  QueueUse use{};
};

/// Decode steps whose time was taken.
struct StepMetrics {
  std::int64_t steps = 0;
  Nanos actual_ns = 0;     ///< of all
  Nanos predicted_ns = 0;  ///< of all: 0 without a plan
  Nanos last_actual_ns = 0, last_predicted_ns = 0;
};

struct RuntimeMetrics {
  KvUsage usage{};
  RuntimeCounters counters{};
  bool measured = false;  ///< whether queues, stalls and steps were watched
  std::vector<QueueMetrics> queues{};
  Stalls stalls{};
  StepMetrics steps{};
  PlanCounts plans{};
  bool drifting = false;
  std::optional<DiskTierCounters> disk{};  ///< nothing: there is none
  std::vector<DegradedMode> degraded{};
  Nanos uptime_ns = 0;
};

/// Text exposition format 0.0.4. `age_ns`: how old the metrics are by now.
std::string prometheus_text(const RuntimeMetrics& metrics, Nanos age_ns = 0);

}  // namespace modalkv
