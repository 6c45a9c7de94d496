#include "runtime/replay.hpp"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>

#include "modalkv/error.hpp"
#include "scheduler/perturb.hpp"
#include "tests/runtime/small_world.hpp"

namespace modalkv {
namespace {

using namespace small_world;

struct Scenario {
  std::string what;
  ReplayConfig config;
  Trace trace;
};

// Every policy on two models, two sizes of GPU and of host and two admission rules, each over its
// own trace.
std::vector<Scenario> scenarios() {
  std::vector<Scenario> all;
  std::uint64_t seed = 1;
  for (const ModelGeometry& geometry : {model(), grouped_model()})
    for (const auto& [tokens, host_bytes] : std::vector<std::pair<Tokens, Bytes>>{
             {2'500, 4 * kGiB}, {9'000, 4 * kGiB}, {2'500, 128 * kMiB}})
      for (const AdmissionRule admission : {AdmissionRule::throughput, AdmissionRule::memory})
        for (const PrecisionPolicy& each : builtin_policies()) {
          const Bytes kv = tokens * kv_bytes_per_token(geometry, both(fp16()));
          ReplayConfig made = config(geometry, machine(geometry, kv), each);
          made.admission = admission;
          made.hardware.host.numa_nodes.value[0].memory_bytes = host_bytes;
          all.push_back({fmt::format("seed {}, {}, {}, {} tokens, admission {}", seed, each.name,
                                     geometry.name, tokens, static_cast<int>(admission)),
                         made, random_trace(seed)});
          ++seed;
        }
  return all;
}

TEST(Replay, EveryRequestEndsCompletedOrWithAReason) {
  std::int64_t completed = 0, beyond = 0, too_large = 0, preemptions = 0;
  for (const Scenario& scenario : scenarios()) {
    SCOPED_TRACE(scenario.what);
    const ReplayResult result = run(scenario.trace, scenario.config);
    ASSERT_EQ(result.outcomes.size(), scenario.trace.requests.size());
    Tokens produced = 0, to_prefill = 0;
    for (std::size_t i = 0; i < result.outcomes.size(); ++i) {
      const RequestOutcome& outcome = result.outcomes[i];
      const Request& request = scenario.trace.requests[i];
      EXPECT_EQ(outcome.arrival_ns, request.arrival_ns);
      EXPECT_EQ(
          outcome.state == RequestState::beyond_context,
          request.prompt_tokens + request.output_tokens > scenario.config.model.context_tokens);
      beyond += outcome.state == RequestState::beyond_context;
      too_large += outcome.state == RequestState::too_large;
      if (outcome.state != RequestState::completed) {
        EXPECT_EQ(outcome.output_tokens, 0);
        continue;
      }
      ++completed;
      EXPECT_EQ(outcome.output_tokens, request.output_tokens);
      EXPECT_LE(outcome.arrival_ns, outcome.first_scheduled_ns);
      EXPECT_LT(outcome.first_scheduled_ns, outcome.first_token_ns);
      EXPECT_EQ(outcome.first_token_ns<outcome.finish_ns, request.output_tokens> 1);
      EXPECT_LT(outcome.reused_tokens, request.prompt_tokens * (1 + outcome.preemptions));
      produced += outcome.output_tokens;
      to_prefill += request.prompt_tokens - outcome.reused_tokens;
      preemptions += outcome.preemptions;
    }
    EXPECT_EQ(result.totals.output_tokens, produced);
    if (result.totals.preemptions == 0) {
      EXPECT_EQ(result.totals.prefill_tokens, to_prefill);
    }
    EXPECT_GE(result.totals.prefill_tokens, to_prefill);
    EXPECT_EQ(result.itl_ns.count(),
              produced - std::count_if(result.outcomes.begin(), result.outcomes.end(),
                                       [](const RequestOutcome& outcome) {
                                         return outcome.output_tokens > 0;
                                       }));
  }
  // The scenarios must reach what they are for.
  EXPECT_GT(completed, 1000);
  EXPECT_GT(beyond, 10);
  EXPECT_GT(too_large, 5);
  EXPECT_GT(preemptions, 10);
}

TEST(Replay, MemoryStaysWithinTheBudgets) {
  for (const Scenario& scenario : scenarios()) {
    SCOPED_TRACE(scenario.what);
    const HardwareProfile& hardware = scenario.config.hardware;
    const auto card = static_cast<Bytes>(0.9 * static_cast<double>(hardware.gpu.memory_bytes));
    const Bytes device_left =
        card - weight_bytes(scenario.config.model) - hardware.gpu.reserved_bytes;
    const PlacePermissions& places = scenario.config.policy.places;
    const Bytes host_left =
        places.streamed || places.cpu ? hardware.host.numa_nodes.value[0].memory_bytes / 2 : 0;
    const ReplayResult result = run(scenario.trace, scenario.config);
    EXPECT_LE(result.capacity.device_kv_budget_bytes, device_left);
    EXPECT_GT(result.totals.peak_device_kv_bytes, 0);
    Bytes peak_device = 0, peak_host = 0;
    for (const StepRecord& step : result.window) {
      ASSERT_LE(step.device_kv_bytes + step.staging_bytes, result.capacity.device_kv_budget_bytes);
      ASSERT_LE(step.host_kv_bytes + step.reuse_bytes, host_left);
      peak_device = std::max(peak_device, step.device_kv_bytes + step.staging_bytes);
      peak_host = std::max(peak_host, step.host_kv_bytes + step.reuse_bytes);
    }
    EXPECT_EQ(result.totals.peak_device_kv_bytes, peak_device);
    EXPECT_EQ(result.totals.peak_host_kv_bytes, peak_host);
  }
}

TEST(Replay, NoProcessorIsBusyLongerThanItHasTime) {
  for (const Scenario& scenario : scenarios()) {
    SCOPED_TRACE(scenario.what);
    const ReplayResult result = run(scenario.trace, scenario.config);
    ASSERT_FALSE(result.window.empty());
    ASSERT_FALSE(result.window_truncated);
    ASSERT_EQ(static_cast<std::int64_t>(result.window.size()), result.totals.iterations);
    const Nanos start = result.window.front().begin_ns;
    Nanos previous_end = start, h2d = 0, cpu = 0, gpu = 0, d2h = 0;
    for (const StepRecord& step : result.window) {
      ASSERT_GE(step.begin_ns, previous_end);
      ASSERT_GT(step.end_ns, step.begin_ns);
      ASSERT_LE(step.gpu_busy_ns, step.end_ns - step.begin_ns);
      h2d += step.h2d_busy_ns;
      cpu += step.cpu_busy_ns;
      gpu += step.gpu_busy_ns;
      d2h += step.d2h_busy_ns;
      ASSERT_LE(h2d, step.end_ns - start);
      ASSERT_LE(cpu, step.end_ns - start);
      previous_end = step.end_ns;
    }
    EXPECT_EQ(result.totals.gpu_busy_ns, gpu);
    EXPECT_EQ(result.totals.h2d_busy_ns, h2d);
    EXPECT_EQ(result.totals.d2h_busy_ns, d2h);
    EXPECT_EQ(result.totals.cpu_busy_ns, cpu);
  }
}

// What a link has moved by the end of a step never exceeds its rate times the time since the start.
void expect_links_within_rates(const ReplayResult& result, const ReplayConfig& config) {
  const LinkProfile& link = config.hardware.link;
  // Durations are whole nanoseconds, one rounding a layer and step.
  const double slack_ns = 2.0 * config.model.layers;
  const Nanos start = result.window.front().begin_ns;
  double h2d_ns = 0, d2h_ns = 0;
  std::vector<double> d2h_until;
  for (std::size_t i = 0; i < result.window.size(); ++i) {
    const StepRecord& step = result.window[i];
    const double slack_so_far_ns = slack_ns * static_cast<double>(i + 1);
    const double step_h2d_ns = 1e9 * static_cast<double>(step.h2d_bytes) / link.h2d_bytes_per_s;
    const double step_d2h_ns = 1e9 * static_cast<double>(step.d2h_bytes) / link.d2h_bytes_per_s;
    ASSERT_LE(step_h2d_ns, static_cast<double>(step.h2d_busy_ns) + slack_ns);
    ASSERT_LE(step_d2h_ns, static_cast<double>(step.d2h_busy_ns) + slack_ns);
    h2d_ns += step_h2d_ns;
    ASSERT_LE(h2d_ns, static_cast<double>(step.end_ns - start) + slack_so_far_ns);
    // Device-to-host traffic may lag behind its step, but not past the begin of the next but one.
    d2h_until.push_back(d2h_ns += step_d2h_ns);
    if (i < 2) continue;
    ASSERT_LE(d2h_until[i - 2], static_cast<double>(step.begin_ns - start) + slack_so_far_ns);
  }
}

TEST(Replay, LinksMoveNoMoreThanTheirRateAllows) {
  Bytes moved_h2d = 0, moved_d2h = 0;
  for (const Scenario& scenario : scenarios()) {
    SCOPED_TRACE(scenario.what);
    const ReplayResult result = run(scenario.trace, scenario.config);
    expect_links_within_rates(result, scenario.config);
    moved_h2d += result.totals.h2d_bytes;
    moved_d2h += result.totals.d2h_bytes;
  }
  EXPECT_GT(moved_h2d, kGiB);
  EXPECT_GT(moved_d2h, kGiB);
}

// Stores that are still under way when the batch runs empty do not vanish.
TEST(Replay, AnIdleMomentDoesNotEmptyTheLink) {
  TraceBuilder builder;
  for (int i = 0; i < 40; ++i)
    builder.add(i * 20 * kMillisecond, {image(800, 100 + static_cast<std::uint64_t>(i))}, 1);
  ReplayConfig made = config(model(), machine(), policy("fp16-offload"));
  made.hardware.link.d2h_bytes_per_s.value = 1e9;
  const ReplayResult result = run(builder.trace(), made);
  expect_links_within_rates(result, made);
  EXPECT_GE(result.totals.d2h_bytes, 35 * 800 * 32 * kKiB);
}

TEST(Replay, IsTheSameBitForBitHoweverItIsAdvanced) {
  for (const PrecisionPolicy& each : builtin_policies()) {
    SCOPED_TRACE(each.name);
    const Trace trace = random_trace(77);
    const ReplayConfig made = config(model(), machine(), each);
    const ReplayResult whole = run(trace, made);
    Replay replay(trace, made);
    while (replay.advance(1)) {
    }
    EXPECT_EQ(replay.requests_done(), static_cast<std::int64_t>(trace.requests.size()));
    const ReplayResult single = replay.finish();
    EXPECT_EQ(whole.digest, single.digest);
    EXPECT_EQ(whole.totals.replans, single.totals.replans);
    EXPECT_NE(whole.digest, run(random_trace(78), made).digest);
  }
}

TEST(Replay, DigestIsOfTheScheduleAndNothingElse) {
  const Trace trace = random_trace(5);
  ReplayConfig made = config(model(), machine(), policy("text-centric"));
  const ReplayResult first = run(trace, made);
  made.policy.name = "another";
  made.window_begin_ns = 3 * kSecond;
  EXPECT_EQ(run(trace, made).digest, first.digest);
  made.hardware.gpu.step_host_ns.value += 1'000;
  EXPECT_NE(run(trace, made).digest, first.digest);
}

// With room for all KV in 16 bits, what a policy would be allowed to do changes nothing.
TEST(Replay, WithoutPressureEveryResidentPolicyIsFp16Resident) {
  const HardwareProfile roomy = machine(model(), 4 * kGiB);
  for (std::uint64_t seed = 1; seed <= 10; ++seed) {
    const Trace trace = random_trace(seed, {.shared_images = false});
    const ReplayResult resident = run(trace, config(model(), roomy, policy("fp16-resident")));
    EXPECT_EQ(resident.totals.h2d_bytes, 0);
    // 64 bytes of trailer a page of 16 tokens: 4 bytes to 2048 elements.
    EXPECT_DOUBLE_EQ(resident.totals.kv_element_bits, 16 + 4 * 8.0 / 2048);
    for (const PrecisionPolicy& each : builtin_policies()) {
      if (!each.places.resident) continue;
      SCOPED_TRACE(fmt::format("seed {}, {}", seed, each.name));
      const ReplayResult result = run(trace, config(model(), roomy, each));
      EXPECT_EQ(result.digest, resident.digest);
      ASSERT_EQ(result.window.size(), resident.window.size());
      for (std::size_t i = 0; i < result.window.size(); ++i) {
        ASSERT_EQ(result.window[i].begin_ns, resident.window[i].begin_ns);
        ASSERT_EQ(result.window[i].end_ns, resident.window[i].end_ns);
        ASSERT_EQ(result.window[i].device_kv_bytes, resident.window[i].device_kv_bytes);
      }
    }
  }
}

TEST(Replay, RateScaleMovesArrivalsOnly) {
  const Trace trace = random_trace(9);
  ReplayConfig made = config(model(), machine(), policy("fp16-offload"));
  made.rate_scale = 4;
  const ReplayResult result = run(trace, made);
  for (std::size_t i = 0; i < trace.requests.size(); ++i)
    EXPECT_NEAR(static_cast<double>(result.outcomes[i].arrival_ns),
                static_cast<double>(trace.requests[i].arrival_ns) / 4, 0.5);
}

TEST(Replay, OneDecodeStepTakesWhatTheRooflineSays) {
  // By hand: one token reads all weights but the embedding table once, and its own KV.
  ModelGeometry plain = model();
  plain.vision = {};
  HardwareProfile bench = machine(plain, kGiB);
  bench.gpu.flops_16bit.value = 1e18;
  const Trace trace = TraceBuilder().add(0, {text(1000)}, 101).trace();
  const ReplayResult result = run(trace, config(plain, bench, policy("fp16-resident")));
  const double table = 2.0 * plain.vocabulary * plain.hidden;
  const double weights_ns = (static_cast<double>(weight_bytes(plain)) - table) / (2e11 * 0.9) * 1e9;
  const double kv_ns = 1050 * 32.0 * 1024 / (2e11 * 0.8) * 1e9;
  const double small_ns = 8 * (10'000 + 7'000 + 90) + 500'000;
  const RequestOutcome& outcome = result.outcomes[0];
  const double step_ns = static_cast<double>(outcome.finish_ns - outcome.first_token_ns) / 100;
  EXPECT_NEAR(step_ns / (weights_ns + kv_ns + small_ns), 1, 0.01);
}

TEST(Replay, CountsRequestsBeyondTheContext) {
  const Tokens context = model().context_tokens;
  const Trace trace = TraceBuilder()
                          .add(0, {text(context - 10)}, 10)
                          .add(0, {text(context - 10)}, 11)
                          .add(0, {image(576), text(10)}, context)
                          .add(kSecond, {text(10)}, 2)
                          .trace();
  const ReplayResult result =
      run(trace, config(model(), machine(model(), 2 * kGiB), policy("fp16-resident")));
  EXPECT_EQ(result.outcomes[0].state, RequestState::completed);
  EXPECT_EQ(result.outcomes[1].state, RequestState::beyond_context);
  EXPECT_EQ(result.outcomes[2].state, RequestState::beyond_context);
  EXPECT_EQ(result.outcomes[2].visual_tokens, 576);
  EXPECT_EQ(result.outcomes[3].state, RequestState::completed);
}

// 64 MiB and 64 KiB of trailers hold 2048 tokens of 16 bits; offloading or compressing stretches
// that.
TEST(Replay, CountsRequestsTooLargeForThePolicy) {
  ModelGeometry plain = model();
  plain.vision = {};
  HardwareProfile bench = machine(plain, 0);
  bench.gpu.memory_bytes.value = static_cast<Bytes>(
      static_cast<double>(weight_bytes(plain) + 64 * kMiB + 64 * kMiB + 64 * kKiB + 1024) / 0.9);
  const Trace trace = TraceBuilder()
                          .add(0, {text(2000)}, 48)
                          .add(kSecond, {text(2000)}, 49)
                          .add(2 * kSecond, {text(100)}, 1)
                          .trace();
  const ReplayResult resident = run(trace, config(plain, bench, policy("fp16-resident")));
  EXPECT_EQ(resident.outcomes[0].state, RequestState::completed);
  EXPECT_EQ(resident.outcomes[1].state, RequestState::too_large);
  EXPECT_EQ(resident.outcomes[2].state, RequestState::completed);
  for (const char* stretched : {"fp16-offload", "fp16-stream", "uniform-int4", "text-centric"}) {
    SCOPED_TRACE(stretched);
    const ReplayResult result = run(trace, config(plain, bench, policy(stretched)));
    EXPECT_EQ(result.outcomes[1].state, RequestState::completed);
    EXPECT_EQ(result.outcomes[1].output_tokens, 49);
  }
}

TEST(Replay, AModelThatDoesNotFitIsAnErrorOfOneLine) {
  HardwareProfile tiny = machine();
  tiny.gpu.memory_bytes.value = weight_bytes(model()) / 2;
  try {
    Replay(random_trace(1), config(model(), tiny, policy("fp16-stream")));
    FAIL() << "must not start";
  } catch (const Error& error) {
    const std::string what = error.what();
    EXPECT_NE(what.find("small does not fit bench"), std::string::npos) << what;
    EXPECT_EQ(what.find('\n'), std::string::npos);
  }
}

// --- reuse

TEST(Replay, AnImageShownAgainIsNotComputedAgain) {
  const auto ttft = [](const RequestOutcome& outcome) {
    return outcome.first_token_ns - outcome.arrival_ns;
  };
  const Trace trace = TraceBuilder()
                          .add(0, {image(1800, 7), text(100)}, 4)
                          .add(10 * kSecond, {image(1800, 7), text(100)}, 4)
                          .add(20 * kSecond, {image(1800, 8), text(100)}, 4)
                          .add(30 * kSecond, {image(1800, 8), image(400, 7), text(100)}, 4)
                          .trace();
  HardwareProfile bench = machine();
  bench.gpu.flops_16bit.value = 5e12;
  for (const char* name : {"fp16-offload", "uniform-int4", "text-centric"}) {
    SCOPED_TRACE(name);
    const ReplayResult result = run(trace, config(model(), bench, policy(name)));
    EXPECT_EQ(result.outcomes[0].reused_tokens, 0);
    EXPECT_EQ(result.outcomes[1].reused_tokens, 1800);
    EXPECT_LT(2 * ttft(result.outcomes[1]), ttft(result.outcomes[0]));
    EXPECT_EQ(result.outcomes[2].reused_tokens, 0);
    EXPECT_EQ(ttft(result.outcomes[2]), ttft(result.outcomes[0]));
    // The same image behind another one is other KV.
    EXPECT_EQ(result.outcomes[3].reused_tokens, 1800);
    EXPECT_EQ(result.totals.prefill_tokens, 1900 + 100 + 1900 + 500);
  }
}

TEST(Replay, AReusedImageIsNotEncodedAgain) {
  const auto vision_ns = [](std::uint64_t second_image) {
    const Trace trace = TraceBuilder()
                            .add(0, {image(1800, 7), text(100)}, 4)
                            .add(10 * kSecond, {image(1800, second_image), text(100)}, 4)
                            .trace();
    HardwareProfile bench = machine();
    bench.gpu.flops_16bit.value = 5e12;
    return run(trace, config(model(), bench, policy("fp16-offload"))).totals.vision_ns;
  };
  EXPECT_EQ(vision_ns(8), 2 * vision_ns(7));
}

TEST(Replay, NothingIsReusedWithoutIdsOrWithoutAHost) {
  const Trace unnamed = TraceBuilder()
                            .add(0, {image(1800), text(100)}, 4)
                            .add(10 * kSecond, {image(1800), text(100)}, 4)
                            .trace();
  const Trace named = TraceBuilder()
                          .add(0, {image(1800, 7), text(100)}, 4)
                          .add(10 * kSecond, {image(1800, 7), text(100)}, 4)
                          .trace();
  EXPECT_EQ(run(unnamed, config(model(), machine(), policy("fp16-offload"))).totals.reused_tokens,
            0);
  EXPECT_EQ(run(named, config(model(), machine(), policy("fp16-resident"))).totals.reused_tokens,
            0);
}

TEST(Replay, NothingIsReusedWhereLoadingIsSlowerThanComputing) {
  const Trace trace = TraceBuilder()
                          .add(0, {image(1800, 7), text(100)}, 4)
                          .add(10 * kSecond, {image(1800, 7), text(100)}, 4)
                          .trace();
  HardwareProfile slow = machine();
  slow.link.h2d_bytes_per_s.value = 1e8;
  slow.link.piece_table.value.clear();
  EXPECT_EQ(run(trace, config(model(), slow, policy("fp16-offload"))).totals.reused_tokens, 0);
}

// A wholly known prompt still computes its last token: that yields the first output token.
TEST(Replay, AWhollyKnownPromptComputesItsLastToken) {
  const Trace trace = TraceBuilder()
                          .add(0, {image(1800, 7), text(100, 9)}, 4)
                          .add(10 * kSecond, {image(1800, 7), text(100, 9)}, 4)
                          .trace();
  HardwareProfile bench = machine();
  bench.gpu.flops_16bit.value = 5e12;
  const ReplayResult result = run(trace, config(model(), bench, policy("fp16-offload")));
  EXPECT_EQ(result.outcomes[1].reused_tokens, 1899);
  EXPECT_EQ(result.totals.prefill_tokens, 1901);
  EXPECT_EQ(result.outcomes[1].output_tokens, 4);
}

// --- what one batch leaves behind

TEST(Replay, ABurstThatHasGoneLeavesNoCompressionBehind) {
  TraceBuilder alone, after_burst;
  for (int i = 0; i < 30; ++i) after_burst.add(0, {image(576), text(200)}, 50);
  for (TraceBuilder* builder : {&alone, &after_burst})
    builder->add(100 * kSecond, {image(576), text(200)}, 50);
  for (const char* name : {"uniform-int4", "text-centric"}) {
    SCOPED_TRACE(name);
    const auto last = [&](const TraceBuilder& builder) {
      const ReplayResult result = run(builder.trace(), config(model(), machine(), policy(name)));
      EXPECT_TRUE(builder.trace().requests.size() == 1 || result.totals.kv_element_bits < 15);
      const RequestOutcome& outcome = result.outcomes.back();
      return std::pair(outcome.first_token_ns - outcome.arrival_ns,
                       outcome.finish_ns - outcome.arrival_ns);
    };
    EXPECT_EQ(last(after_burst), last(alone));
  }
}

TEST(Replay, APromptInChunksAttendsToItsEarlierChunks) {
  const Trace trace = TraceBuilder().add(0, {text(8000)}, 1).trace();
  const auto gpu_ns = [&](Tokens max_step_tokens) {
    ReplayConfig made = config(model(), machine(model(), kGiB), policy("fp16-resident"));
    made.limits.max_step_tokens = max_step_tokens;
    return run(trace, made).totals.gpu_busy_ns;
  };
  EXPECT_GT(gpu_ns(500), gpu_ns(8000)) << "the same pairs of tokens, and weights read more often";
}

// --- load

TEST(Replay, SaysWhenArrivalsOutrunService) {
  TraceBuilder light, heavy;
  for (int i = 0; i < 100; ++i) {
    light.add(i * 5 * kSecond, {text(500)}, 100);
    heavy.add(i * kMillisecond, {text(500)}, 100);
  }
  const ReplayConfig made = config(model(), machine(), policy("fp16-resident"));
  EXPECT_FALSE(run(light.trace(), made).saturated);
  EXPECT_TRUE(run(heavy.trace(), made).saturated);
}

TEST(Replay, PreemptedRequestsFinishWithEveryToken) {
  TraceBuilder builder;
  for (int i = 0; i < 12; ++i) builder.add(0, {image(300), text(20)}, 900);
  ReplayConfig made = config(model(), machine(), policy("fp16-resident"));
  made.admission = AdmissionRule::memory;
  const ReplayResult result = run(builder.trace(), made);
  EXPECT_GT(result.totals.preemptions, 0);
  EXPECT_GT(result.totals.prefill_tokens, 12 * 320);
  for (const RequestOutcome& outcome : result.outcomes) EXPECT_EQ(outcome.output_tokens, 900);
  EXPECT_EQ(result.totals.output_tokens, 12 * 900);
  // However often it was preempted, a request holds its own tokens, each once.
  EXPECT_TRUE(std::any_of(result.outcomes.begin(), result.outcomes.end(),
                          [](const RequestOutcome& outcome) { return outcome.preemptions > 1; }));
  EXPECT_EQ(result.window.back().decode_sequences, 1);
  EXPECT_EQ(result.window.back().device_kv_bytes, round_up(320 + 899, 16) * 8 * (4096 + 4));
}

TEST(Replay, StepsKeepTheirTokenAndSequenceLimits) {
  ReplayConfig made = config(model(), machine(model(), kGiB), policy("fp16-resident"));
  made.limits.max_sequences = 5;
  made.limits.max_step_tokens = 300;
  for (std::uint64_t seed = 1; seed <= 5; ++seed) {
    SCOPED_TRACE(fmt::format("seed {}", seed));
    const ReplayResult result = run(random_trace(seed), made);
    for (const StepRecord& step : result.window) {
      ASSERT_LE(step.decode_sequences, 5);
      ASSERT_LE(step.decode_sequences + step.prefill_tokens, 300);
      ASSERT_GT(step.decode_sequences + step.prefill_tokens, 0);
    }
  }
}

// --- a machine that is not what its profile says

TEST(Replay, APerturbedMachineChangesTimesAndShowsThePredictionError) {
  const Trace trace = random_trace(3);
  ReplayConfig made = config(model(), machine(), policy("text-centric"));
  const ReplayResult exact = run(trace, made);
  EXPECT_EQ(exact.totals.predicted_step_error, 0);
  made.actual_hardware = made.hardware;
  const ReplayResult same = run(trace, made);
  EXPECT_EQ(same.digest, exact.digest);
  EXPECT_EQ(same.totals.predicted_step_error, 0);
  made.actual_hardware = perturbed(made.hardware, 0.2, 1);
  const ReplayResult other = run(trace, made);
  EXPECT_NE(other.digest, exact.digest);
  EXPECT_GT(other.totals.predicted_step_error, 0);
  EXPECT_LT(other.totals.predicted_step_error, 0.25);
  made.actual_hardware = perturbed(made.hardware, 0.2, 2);
  EXPECT_NE(run(trace, made).digest, other.digest);
}

TEST(Replay, AnEmptyTraceEndsAtOnce) {
  const ReplayResult result = run({}, config(model(), machine(), policy("text-centric")));
  EXPECT_EQ(result.totals.iterations, 0);
  EXPECT_EQ(result.totals.duration_ns, 0);
  EXPECT_FALSE(result.saturated);
}

}  // namespace
}  // namespace modalkv
