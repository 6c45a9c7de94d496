// What serving a batch under several policies says, for people and for programs.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "modalkv/hardware.hpp"
#include "modalkv/runtime.hpp"
#include "tools/bench/bench_report.hpp"
#include "tools/bench/e2e/e2e_engine.hpp"
#include "tools/bench/time_statistics.hpp"

namespace modalkv {

/// Spreads are over rounds and sequences, or rounds and steps.
struct E2ePolicyResult {
  std::string policy{};
  TimeSpread cold_ttft_ms{};  ///< of a prompt that was never seen, served alone
  TimeSpread warm_ttft_ms{};  ///< of the same prompt again, its image's KV kept
  TimeSpread tpot_ms{};       ///< of a decode step of the batch
  double predicted_step_ms = 0;
  Bytes streamed_bytes_a_step = 0;
  Bytes staging_bytes = 0;
  Tokens reused_tokens = 0;  ///< of all warm prompts of a round
  std::string reason{};      ///< of the plan
  std::int64_t inflated_pages = 0;
  RuntimeCounters counters{};  ///< of the last round
};

struct E2eReport {
  BenchReport head{};
  std::string machine{};
  E2eLoad load{};
  int rounds = 0;
  HardwareProfile profile{};
  std::vector<E2ePolicyResult> policies{};

  /// By name; nullptr: it was not served.
  const E2ePolicyResult* find(std::string_view policy) const;
  nlohmann::ordered_json json() const;
  std::string table() const;
};

}  // namespace modalkv
