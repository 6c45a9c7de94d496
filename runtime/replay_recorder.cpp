#include "runtime/replay_recorder.hpp"

#include <algorithm>
#include <cmath>

namespace modalkv {
namespace {

constexpr std::size_t kWindowSteps = 20'000;
constexpr std::size_t kSeriesSteps = 2048;

// FNV-1a over 64-bit words.
class Fnv {
 public:
  void add(std::int64_t value) {
    hash_ = (hash_ ^ static_cast<std::uint64_t>(value)) * 1099511628211u;
  }
  std::uint64_t value() const { return hash_; }

 private:
  std::uint64_t hash_ = 14695981039346656037u;
};

}  // namespace

ReplayRecorder::ReplayRecorder(const ReplayConfig& config, std::size_t requests)
    : kv_elements_per_token_(2.0 * config.model.kv_heads * config.model.head_dim *
                             config.model.layers),
      window_begin_ns_(config.window_begin_ns),
      window_end_ns_(config.window_begin_ns + config.window_length_ns) {
  result_.policy = config.policy.name;
  result_.rate_scale = config.rate_scale;
  result_.outcomes.resize(requests);
}

void ReplayRecorder::arrived(std::uint32_t request, Nanos arrival_ns, Tokens prompt, Tokens visual,
                             std::int64_t waiting) {
  outcome(request).arrival_ns = arrival_ns;
  outcome(request).prompt_tokens = prompt;
  outcome(request).visual_tokens = visual;
  ++arrivals_;
  const auto requests = static_cast<std::int64_t>(result_.outcomes.size());
  if (arrivals_ == requests / 2) waiting_at_half_ = waiting;
  if (arrivals_ == requests) waiting_at_end_ = waiting;
}

void ReplayRecorder::not_run(std::uint32_t request, RequestState state) {
  outcome(request).state = state;
  ++requests_done_;
}

void ReplayRecorder::scheduled(std::uint32_t request, Nanos now_ns) {
  if (outcome(request).preemptions == 0) outcome(request).first_scheduled_ns = now_ns;
}

void ReplayRecorder::preempted(std::uint32_t request) {
  ++outcome(request).preemptions;
  ++result_.totals.preemptions;
}

void ReplayRecorder::token(std::uint32_t request, Nanos previous_ns, Nanos now_ns, bool first) {
  ++result_.totals.output_tokens;
  if (first) {
    outcome(request).first_token_ns = now_ns;
    return;
  }
  const Nanos gap = now_ns - previous_ns;
  if (gap != pending_gap_ns_) {
    if (pending_gaps_ > 0) result_.itl_ns.add(pending_gap_ns_, pending_gaps_);
    pending_gap_ns_ = gap;
    pending_gaps_ = 0;
  }
  ++pending_gaps_;
}

void ReplayRecorder::finished(std::uint32_t request, Nanos now_ns, Tokens output) {
  outcome(request).finish_ns = now_ns;
  outcome(request).output_tokens = output;
  ++requests_done_;
}

void ReplayRecorder::step(const StepRecord& record, Tokens tokens, Nanos vision_ns,
                          Nanos predicted_ns) {
  ReplayTotals& totals = result_.totals;
  ++totals.iterations;
  totals.gpu_busy_ns += record.gpu_busy_ns;
  totals.h2d_busy_ns += record.h2d_busy_ns;
  totals.d2h_busy_ns += record.d2h_busy_ns;
  totals.cpu_busy_ns += record.cpu_busy_ns;
  totals.vision_ns += vision_ns;
  totals.h2d_bytes += record.h2d_bytes;
  totals.d2h_bytes += record.d2h_bytes;
  totals.prefill_tokens += record.prefill_tokens;
  totals.peak_device_kv_bytes =
      std::max(totals.peak_device_kv_bytes, record.device_kv_bytes + record.staging_bytes);
  totals.peak_host_kv_bytes =
      std::max(totals.peak_host_kv_bytes, record.host_kv_bytes + record.reuse_bytes);
  const auto duration = static_cast<double>(record.end_ns - record.begin_ns);
  bit_time_ += 8 * static_cast<double>(record.device_kv_bytes + record.host_kv_bytes) * duration;
  element_time_ += static_cast<double>(tokens) * kv_elements_per_token_ * duration;
  if (predicted_ns > 0)
    prediction_error_ += std::abs(static_cast<double>(predicted_ns) - duration) / duration;
  keep_in_window(record);
  keep_in_series(record);
}

void ReplayRecorder::keep_in_window(const StepRecord& record) {
  if (record.end_ns <= window_begin_ns_ || record.begin_ns >= window_end_ns_) return;
  if (result_.window.size() < kWindowSteps) {
    result_.window.push_back(record);
  } else {
    result_.window_truncated = true;
  }
}

// Every stride-th step; when full, every other one goes and the stride doubles.
void ReplayRecorder::keep_in_series(const StepRecord& record) {
  if ((result_.totals.iterations - 1) % series_stride_ != 0) return;
  auto& series = result_.series;
  if (series.size() == kSeriesSteps) {
    for (std::size_t i = 0; i < series.size() / 2; ++i) series[i] = series[2 * i];
    series.resize(series.size() / 2);
    series_stride_ *= 2;
    if ((result_.totals.iterations - 1) % series_stride_ != 0) return;
  }
  series.push_back(record);
}

// Arrivals outran service: the queue at the last arrival is long and was shorter half-way.
bool ReplayRecorder::queue_grew_to_the_end() const {
  const auto long_queue = std::max<std::int64_t>(8, arrivals_ / 100);
  return waiting_at_end_ > long_queue && 2 * waiting_at_end_ > 3 * waiting_at_half_;
}

std::uint64_t ReplayRecorder::digest() const {
  Fnv fnv;
  for (const RequestOutcome& outcome : result_.outcomes)
    for (const std::int64_t value :
         {static_cast<std::int64_t>(outcome.state), outcome.arrival_ns, outcome.first_scheduled_ns,
          outcome.first_token_ns, outcome.finish_ns, outcome.output_tokens, outcome.reused_tokens,
          static_cast<std::int64_t>(outcome.preemptions)})
      fnv.add(value);
  const ReplayTotals& totals = result_.totals;
  for (const std::int64_t value : {totals.iterations, totals.h2d_bytes, totals.d2h_bytes,
                                   totals.gpu_busy_ns, totals.peak_device_kv_bytes})
    fnv.add(value);
  return fnv.value();
}

ReplayResult ReplayRecorder::finish(std::int64_t replans) {
  if (pending_gaps_ > 0) result_.itl_ns.add(pending_gap_ns_, pending_gaps_);
  ReplayTotals& totals = result_.totals;
  totals.replans = replans;
  Nanos first = 0, last = 0;
  if (!result_.outcomes.empty()) first = last = result_.outcomes.front().arrival_ns;
  for (const RequestOutcome& outcome : result_.outcomes) {
    last = std::max(last, outcome.finish_ns);
    totals.reused_tokens += outcome.reused_tokens;
  }
  totals.duration_ns = last - first;
  totals.kv_element_bits = element_time_ > 0 ? bit_time_ / element_time_ : 0;
  totals.predicted_step_error =
      totals.iterations > 0 ? prediction_error_ / static_cast<double>(totals.iterations) : 0;
  result_.saturated = queue_grew_to_the_end();
  result_.digest = digest();
  return std::move(result_);
}

}  // namespace modalkv
