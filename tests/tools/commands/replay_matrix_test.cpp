#include "tools/commands/replay_matrix.hpp"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "modalkv/error.hpp"
#include "scheduler/perturb.hpp"
#include "scheduler/policies.hpp"
#include "tools/profile/profile.hpp"
#include "tools/report/report.hpp"
#include "tools/trace/generator.hpp"

namespace modalkv {
namespace {

Trace made_trace(std::uint64_t seed) {
  return generate_trace(
      workloads().front(),
      {.requests = 60, .rate_per_s = 3, .arrival_cv = 2, .image_pool = 20, .seed = seed});
}

std::vector<ReplayConfig> configurations(const char* model, const char* hardware) {
  std::vector<ReplayConfig> configs;
  for (const double rate_scale : {1.0, 4.0})
    for (const PrecisionPolicy& policy : builtin_policies())
      configs.push_back({.model = load_model(model),
                         .hardware = load_hardware(hardware),
                         .policy = policy,
                         .limits = {},
                         .rate_scale = rate_scale});
  return configs;
}

std::vector<std::uint64_t> digests(const std::vector<TimedReplay>& replays) {
  std::vector<std::uint64_t> result;
  for (const TimedReplay& replay : replays) result.push_back(replay.result.digest);
  return result;
}

TEST(ReplayMatrix, ResultsDoNotDependOnThreadsOrOnWhatRanBefore) {
  for (std::uint64_t seed = 1; seed <= 3; ++seed) {
    const Trace trace = made_trace(seed);
    for (const auto& [model, hardware] :
         {std::pair("llava-1.5-7b", "rtx-4090"), std::pair("qwen2.5-vl-7b", "l4")}) {
      SCOPED_TRACE(fmt::format("seed {}, {} on {}", seed, model, hardware));
      const auto configs = configurations(model, hardware);
      const auto alone = digests(replay_all(trace, configs, 1, true));
      for (const int threads : {1, 2, 4, 64})
        EXPECT_EQ(digests(replay_all(trace, configs, threads, true)), alone) << threads;
    }
  }
}

TEST(ReplayMatrix, ResultsStandInTheOrderOfTheirConfigurations) {
  const auto configs = configurations("llava-1.5-7b", "rtx-4090");
  const auto replays = replay_all(made_trace(4), configs, 4, true);
  ASSERT_EQ(replays.size(), configs.size());
  for (std::size_t i = 0; i < configs.size(); ++i) {
    EXPECT_EQ(replays[i].result.policy, configs[i].policy.name);
    EXPECT_EQ(replays[i].result.rate_scale, configs[i].rate_scale);
    EXPECT_EQ(replays[i].result.outcomes.size(), 60u);
  }
}

TEST(ReplayMatrix, AFailureOnAnyThreadIsTheCallersToCatch) {
  auto configs = configurations("llava-1.5-7b", "rtx-4090");
  configs[3].model = load_model("qwen2.5-vl-72b");
  for (const int threads : {1, 4})
    EXPECT_THROW(replay_all(made_trace(1), configs, threads, true), Error);
}

TEST(ReplayMatrix, OnShippedMachinesEveryResidentPolicyIsFp16ResidentWithoutPressure) {
  const Trace trace =
      generate_trace(workloads().front(), {.requests = 40, .rate_per_s = 0.5, .seed = 6});
  for (const auto& [model, hardware] :
       {std::pair("llava-1.5-7b", "h200-sxm"), std::pair("qwen2.5-vl-7b", "mi300x")}) {
    std::vector<TimedReplay> replays = replay_all(trace, configurations(model, hardware), 2, true);
    for (const TimedReplay& replay : replays) {
      if (replay.result.policy == "fp16-stream") continue;
      const bool first_rate = replay.result.rate_scale == 1;
      const std::uint64_t resident = replays[first_rate ? 0 : replays.size() / 2].result.digest;
      EXPECT_EQ(replay.result.digest, resident)
          << replay.result.policy << ", " << model << " on " << hardware;
    }
  }
}

}  // namespace
}  // namespace modalkv
