// Collects what a replay produces, in bounded memory but for one outcome a request.
#pragma once

#include <cstdint>
#include <vector>

#include "runtime/replay.hpp"
#include "runtime/replay_result.hpp"

namespace modalkv {

class ReplayRecorder {
 public:
  ReplayRecorder(const ReplayConfig& config, std::size_t requests);

  void set_capacity(const ReplayCapacity& capacity) { result_.capacity = capacity; }
  void arrived(std::uint32_t request, Nanos arrival_ns, Tokens prompt, Tokens visual,
               std::int64_t waiting);
  void not_run(std::uint32_t request, RequestState state);
  void scheduled(std::uint32_t request, Nanos now_ns);
  void preempted(std::uint32_t request);
  void reused(std::uint32_t request, Tokens tokens) { outcome(request).reused_tokens += tokens; }
  void token(std::uint32_t request, Nanos previous_ns, Nanos now_ns, bool first);
  void finished(std::uint32_t request, Nanos now_ns, Tokens output);
  /// `tokens` is what the KV bytes of `record` hold; `predicted_ns` is 0 where prediction and cost
  /// are one.
  void step(const StepRecord& record, Tokens tokens, Nanos vision_ns, Nanos predicted_ns);

  std::int64_t requests_done() const { return requests_done_; }
  ReplayResult finish(std::int64_t replans);

 private:
  RequestOutcome& outcome(std::uint32_t request) { return result_.outcomes[request]; }
  void keep_in_window(const StepRecord& record);
  void keep_in_series(const StepRecord& record);
  bool queue_grew_to_the_end() const;
  std::uint64_t digest() const;

  ReplayResult result_;
  double kv_elements_per_token_ = 0;
  Nanos window_begin_ns_, window_end_ns_;
  std::int64_t requests_done_ = 0;
  std::int64_t arrivals_ = 0;
  std::int64_t waiting_at_half_ = 0, waiting_at_end_ = 0;
  std::int64_t series_stride_ = 1;
  double bit_time_ = 0, element_time_ = 0;
  double prediction_error_ = 0;
  // Gaps between tokens of one step are mostly equal: counted together.
  Nanos pending_gap_ns_ = 0;
  std::int64_t pending_gaps_ = 0;
};

}  // namespace modalkv
