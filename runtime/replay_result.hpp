// What a replay found: one outcome a request, totals, and a bounded timeline. All of it is
// simulated.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "modalkv/units.hpp"
#include "runtime/latency_histogram.hpp"

namespace modalkv {

enum class RequestState : std::uint8_t {
  completed,
  beyond_context,  ///< prompt and output exceed the model's context; not run
  too_large,       ///< its KV alone exceeds what this policy can hold; not run
};

constexpr std::string_view name(RequestState state) {
  constexpr std::string_view names[] = {"completed", "beyond-context", "too-large"};
  return names[static_cast<std::uint8_t>(state)];
}

struct RequestOutcome {
  RequestState state = RequestState::completed;
  Nanos arrival_ns = 0;  ///< after rate scaling
  Nanos first_scheduled_ns = 0;
  Nanos first_token_ns = 0;
  Nanos finish_ns = 0;       ///< last token
  Tokens prompt_tokens = 0;  ///< after the image-token rule
  Tokens visual_tokens = 0;
  Tokens output_tokens = 0;  ///< produced
  Tokens reused_tokens = 0;  ///< prompt tokens whose KV came from the reuse cache
  std::int32_t preemptions = 0;
};

/// One step, for the timeline. Busy times of the GPU and the CPU lie inside [begin_ns, end_ns];
/// copies may begin in the step before and outlast this one.
struct StepRecord {
  Nanos begin_ns = 0;
  Nanos end_ns = 0;
  Nanos gpu_busy_ns = 0;
  Nanos h2d_busy_ns = 0;
  Nanos d2h_busy_ns = 0;
  Nanos cpu_busy_ns = 0;
  std::int32_t decode_sequences = 0;
  std::int32_t waiting_requests = 0;
  Tokens prefill_tokens = 0;
  Bytes device_kv_bytes = 0;  ///< resident pages
  Bytes staging_bytes = 0;
  Bytes host_kv_bytes = 0;  ///< of running sequences
  Bytes reuse_bytes = 0;    ///< held on the host for later requests
  Bytes h2d_bytes = 0;      ///< in this step
  Bytes d2h_bytes = 0;
};

struct ReplayTotals {
  std::int64_t iterations = 0;
  std::int64_t preemptions = 0;
  std::int64_t replans = 0;
  Nanos duration_ns = 0;  ///< first arrival to last token
  Nanos gpu_busy_ns = 0;
  Nanos h2d_busy_ns = 0;
  Nanos d2h_busy_ns = 0;
  Nanos cpu_busy_ns = 0;
  Nanos vision_ns = 0;  ///< of gpu_busy_ns
  Bytes h2d_bytes = 0;
  Bytes d2h_bytes = 0;
  Bytes peak_device_kv_bytes = 0;  ///< staging included
  Bytes peak_host_kv_bytes = 0;    ///< held for reuse included
  Tokens output_tokens = 0;
  Tokens prefill_tokens = 0;  ///< computed, recomputation after preemption included
  Tokens reused_tokens = 0;
  double kv_element_bits = 0;       ///< mean stored bits per KV element, weighted by tokens x time
  double predicted_step_error = 0;  ///< mean |predicted - actual| / actual; 0 without --perturb
};

/// What this policy had to work with, so that a reader can check the arithmetic.
struct ReplayCapacity {
  Bytes device_kv_budget_bytes = 0;  ///< GPU memory left for KV and staging
  Bytes host_kv_budget_bytes = 0;    ///< pinnable; 0 where the policy keeps nothing there
  Bytes weight_bytes = 0;
  Bytes kv_bytes_per_token = 0;  ///< in 16 bits, with its part of a page's trailer
  Tokens device_tokens_16bit = 0;
};

struct ReplayResult {
  std::string policy;
  double rate_scale = 1;
  std::vector<RequestOutcome> outcomes;  ///< in trace order
  LatencyHistogram itl_ns;               ///< every gap between two tokens of a request
  ReplayTotals totals;
  ReplayCapacity capacity;
  bool saturated = false;          ///< the queue grew to the end: arrivals outran service
  std::vector<StepRecord> window;  ///< steps inside the trace window, complete until full
  bool window_truncated = false;
  std::vector<StepRecord> series;  ///< the whole run, thinned to at most 2048 steps
  std::uint64_t digest = 0;        ///< of all outcomes and totals
};

}  // namespace modalkv
