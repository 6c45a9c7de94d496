// Reports with numbers that can be checked in the head.
#pragma once

#include <string>
#include <vector>

#include "tools/report/report.hpp"

namespace modalkv::made_report {

inline RequestOutcome completed(Nanos arrival_ms, Nanos ttft_ms, Nanos tpot_ms, Tokens output,
                                Tokens prompt = 100, Tokens visual = 60) {
  RequestOutcome outcome{.arrival_ns = arrival_ms * kMillisecond,
                         .prompt_tokens = prompt,
                         .visual_tokens = visual,
                         .output_tokens = output};
  outcome.first_scheduled_ns = outcome.arrival_ns + kMillisecond;
  outcome.first_token_ns = outcome.arrival_ns + ttft_ms * kMillisecond;
  outcome.finish_ns = outcome.first_token_ns + (output - 1) * tpot_ms * kMillisecond;
  return outcome;
}

inline RequestOutcome refused(RequestState state, Nanos arrival_ms, Tokens prompt) {
  return {.state = state, .arrival_ns = arrival_ms * kMillisecond, .prompt_tokens = prompt};
}

inline ReplayResult result(std::string policy, std::vector<RequestOutcome> outcomes,
                           Nanos duration_s) {
  ReplayResult made;
  made.policy = std::move(policy);
  made.outcomes = std::move(outcomes);
  made.totals.duration_ns = duration_s * kSecond;
  made.totals.kv_element_bits = 16;
  made.capacity = {.device_kv_budget_bytes = 3 * kGiB,
                   .host_kv_budget_bytes = 5 * kGiB,
                   .weight_bytes = 2 * kGiB,
                   .kv_bytes_per_token = 32'768,
                   .device_tokens_16bit = 98'304};
  return made;
}

/// Steps of 10 ms from `begin_ms` on, without gaps; every third one prefetches past its begin.
inline void add_steps(ReplayResult& made, Nanos begin_ms, int count) {
  for (int i = 0; i < count; ++i) {
    const Nanos begin = (begin_ms + 10 * i) * kMillisecond;
    made.window.push_back({.begin_ns = begin,
                           .end_ns = begin + 10 * kMillisecond,
                           .gpu_busy_ns = 9 * kMillisecond,
                           .h2d_busy_ns = (i % 3 == 0 ? 12 : 4) * kMillisecond,
                           .d2h_busy_ns = (i % 4 == 0 ? 15 : 0) * kMillisecond,
                           .cpu_busy_ns = 0,
                           .decode_sequences = i,
                           .waiting_requests = 2 * i,
                           .prefill_tokens = 64,
                           .device_kv_bytes = kGiB,
                           .staging_bytes = kGiB / 4,
                           .host_kv_bytes = 2 * kGiB,
                           .reuse_bytes = kGiB / 2,
                           .h2d_bytes = 1000,
                           .d2h_bytes = 500});
  }
  made.series = made.window;
}

/// fp16-stream is twice as slow to the first token and four times in each token as text-centric.
inline Report report() {
  Report made{.command_line = "modalkv simulate --trace <a&b>.jsonl",
              .model = "small",
              .hardware = "bench",
              .trace_name = "a<b>.jsonl",
              .trace_format = "modalkv",
              .requests = 4,
              .skipped_rows = 3,
              .context_tokens = 4096,
              .image_tokens = "trace",
              .admission = "throughput",
              .slo = {.ttft_ms = 350.0, .tpot_ms = 25.0, .e2el_ms = {}},
              .seed = 17};
  ReplayResult stream =
      result("fp16-stream",
             {completed(0, 200, 40, 11), completed(100, 400, 40, 1), completed(200, 600, 80, 21),
              refused(RequestState::beyond_context, 300, 5000)},
             10);
  stream.saturated = true;
  stream.digest = 0xabc;
  ReplayResult centric =
      result("text-centric",
             {completed(0, 100, 10, 11), completed(100, 200, 10, 1), completed(200, 300, 20, 21),
              refused(RequestState::beyond_context, 300, 5000)},
             8);
  centric.totals.kv_element_bits = 6.5;
  centric.totals.peak_device_kv_bytes = kGiB + kGiB / 4;
  centric.totals.peak_host_kv_bytes = 2 * kGiB;
  centric.digest = 0x1234567890abcdef;
  for (ReplayResult* each : {&stream, &centric}) {
    add_steps(*each, 0, 12);
    made.runs.push_back({.result = *each, .metrics = {}, .replay_wall_s = 0.5});
  }
  made.wall_s = 2;
  complete(made);
  return made;
}

}  // namespace modalkv::made_report
