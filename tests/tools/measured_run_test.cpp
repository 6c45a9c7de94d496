// The replay against a run of vLLM 0.19 that others measured: Llama-3.1-8B on an RTX 4090, 300
// requests at about 10 a second, overloaded, so that queueing, batching and preemption all count.
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "runtime/replay.hpp"
#include "scheduler/policies.hpp"
#include "tools/profile/profile.hpp"

namespace modalkv {
namespace {

constexpr double kTolerance = 0.15;

struct Measured {
  double arrival_s = 0, queued_s = 0, first_token_s = 0, last_token_s = 0;
  Tokens input_tokens = 0, output_tokens = 0;
};

std::filesystem::path measured_folder() {
  return std::filesystem::path(MODALKV_SOURCE_DIR) / ".." / "shared" / "data" / "measured" /
         "rtx4090_llama-3.1-8b";
}

std::vector<Measured> read_measured() {
  std::vector<Measured> rows;
  std::ifstream file(measured_folder() / "requests.jsonl");
  for (std::string line; std::getline(file, line);) {
    const auto json = nlohmann::json::parse(line);
    rows.push_back({.arrival_s = json.at("arrival_time"),
                    .queued_s = json.at("queued_ts"),
                    .first_token_s = json.at("first_token_ts"),
                    .last_token_s = json.at("last_token_ts"),
                    .input_tokens = json.at("input_toks"),
                    .output_tokens = json.at("output_toks")});
  }
  std::sort(rows.begin(), rows.end(),
            [](const Measured& a, const Measured& b) { return a.arrival_s < b.arrival_s; });
  return rows;
}

Trace trace_of(const std::vector<Measured>& rows) {
  Trace trace;
  for (const Measured& row : rows) {
    const double since_first_s = row.arrival_s - rows.front().arrival_s;
    trace.requests.push_back({.arrival_ns = static_cast<Nanos>(since_first_s * 1e9),
                              .prompt_tokens = row.input_tokens,
                              .output_tokens = row.output_tokens,
                              .first_segment = static_cast<std::uint32_t>(trace.segments.size()),
                              .segment_count = 1});
    trace.segments.push_back({.token_class = TokenClass::text, .tokens = row.input_tokens});
  }
  return trace;
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const std::size_t half = values.size() / 2;
  return values.size() % 2 == 1 ? values[half] : (values[half - 1] + values[half]) / 2;
}

TEST(MeasuredRun, IsPredictedWithinFifteenPercent) {
  if (!std::filesystem::exists(measured_folder())) GTEST_SKIP() << "no measured run here";
  const std::vector<Measured> rows = read_measured();
  ASSERT_EQ(rows.size(), 300u);
  const Trace trace = trace_of(rows);
  Replay replay(trace, {.model = load_model("llama-3.1-8b"),
                        .hardware = load_hardware("rtx-4090"),
                        .policy = find_policy("fp16-resident").value(),
                        .limits = {}});
  while (replay.advance(10'000)) {
  }
  const ReplayResult result = replay.finish();

  std::vector<double> measured_ttft, measured_tpot, ttft, tpot;
  double last_s = 0, queued_s = rows.front().queued_s;
  for (std::size_t i = 0; i < rows.size(); ++i) {
    const Measured& row = rows[i];
    const RequestOutcome& outcome = result.outcomes[i];
    ASSERT_EQ(outcome.output_tokens, row.output_tokens);
    const auto gaps = static_cast<double>(row.output_tokens - 1);
    measured_ttft.push_back(row.first_token_s - row.queued_s);
    measured_tpot.push_back((row.last_token_s - row.first_token_s) / gaps);
    ttft.push_back(static_cast<double>(outcome.first_token_ns - outcome.arrival_ns) / 1e9);
    tpot.push_back(static_cast<double>(outcome.finish_ns - outcome.first_token_ns) / 1e9 / gaps);
    last_s = std::max(last_s, row.last_token_s);
    queued_s = std::min(queued_s, row.queued_s);
  }
  const double duration_s = static_cast<double>(result.totals.duration_ns) / 1e9;
  RecordProperty("ttft_ratio", std::to_string(median(ttft) / median(measured_ttft)));
  RecordProperty("tpot_ratio", std::to_string(median(tpot) / median(measured_tpot)));
  // 60.4 s for 60.1 s, 31.2 ms for 30.8 ms, 186 s for 184 s.
  EXPECT_NEAR(median(ttft) / median(measured_ttft), 1, kTolerance);
  EXPECT_NEAR(median(tpot) / median(measured_tpot), 1, kTolerance);
  EXPECT_NEAR(duration_s / (last_s - queued_s), 1, kTolerance);
  EXPECT_TRUE(result.saturated);
  // The engine found room for 41,408 tokens.
  EXPECT_NEAR(static_cast<double>(result.capacity.device_tokens_16bit) / 41'408, 1, 0.02);
}

}  // namespace
}  // namespace modalkv
