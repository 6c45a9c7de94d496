// The replay: a request trace through batching, planning and the step recurrence, in virtual time.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>

#include "modalkv/hardware.hpp"
#include "modalkv/model.hpp"
#include "modalkv/policy.hpp"
#include "runtime/replay_result.hpp"
#include "scheduler/request.hpp"

namespace modalkv {

struct ReplayLimits {
  int max_sequences = 256;          ///< running at once
  Tokens max_step_tokens = 2048;    ///< of a step: decode tokens and prefill chunks
  double memory_utilization = 0.9;  ///< of GPU memory, for weights, workspace, KV and staging
};

/// When a waiting request may join the batch.
enum class AdmissionRule : std::uint8_t {
  throughput,  ///< its KV fits and the batch's tokens per second do not fall by it
  memory,      ///< its KV fits, on whatever tier the policy may use
};

struct ReplayConfig {
  ModelGeometry model;
  HardwareProfile hardware;                          ///< what the planner believes
  std::optional<HardwareProfile> actual_hardware{};  ///< what steps really cost, where that differs
  PrecisionPolicy policy;
  ReplayLimits limits;
  double rate_scale = 1;  ///< arrivals this many times as fast
  AdmissionRule admission = AdmissionRule::throughput;
  Nanos window_begin_ns = 0;  ///< of the timeline kept step by step
  Nanos window_length_ns = 10 * kSecond;
};

/// One policy over one trace. Deterministic: same trace and configuration, same result, bit for
/// bit. Not thread-safe; any number of replays may run at once on one trace, which must outlive
/// them.
class Replay {
 public:
  /// Throws Error where the model's weights do not fit the GPU.
  Replay(const Trace& trace, const ReplayConfig& config);
  ~Replay();
  Replay(Replay&&) noexcept;
  Replay& operator=(Replay&&) noexcept;

  /// Runs at most `steps` more iterations. False once every request has ended.
  bool advance(std::int64_t steps);
  /// Requests that have ended, of all.
  std::int64_t requests_done() const;
  /// Call once, after `advance` returned false.
  ReplayResult finish();

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace modalkv
