// Serving a small model end to end on memory of this machine: what is computed does not depend on
// where KV lies, and the report says what was done. How long anything took decides nothing.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "kernels/number.hpp"
#include "modalkv/error.hpp"
#include "scheduler/policies.hpp"
#include "tools/bench/e2e/e2e_case.hpp"
#include "tools/bench/e2e/machine_profile.hpp"

namespace modalkv {
namespace {

ModelGeometry small_model() {
  ModelGeometry model;
  model.name = "small";
  model.layers = 6;
  model.q_heads = 4;
  model.kv_heads = 2;
  model.head_dim = 64;
  model.hidden = 64;
  model.ffn = 96;
  model.vocabulary = 50;
  return model;
}

E2eLoad small_load(double device_share) {
  E2eLoad load{.model = small_model(),
               .batch = 2,
               .image_tokens = 256,
               .text_tokens = 24,
               .chunk_tokens = 80,
               .decode_steps = 4};
  load.device_budget_bytes =
      static_cast<Bytes>(device_share * static_cast<double>(load.kv_bytes()));
  load.host_bytes = 2 * load.kv_bytes() + 4 * kMiB;
  return load;
}

std::unique_ptr<E2eMachine> machine_for(const E2eLoad& load) {
  return host_e2e_machine({.model = load.model,
                           .max_rows = load.chunk_tokens,
                           .device_bytes = load.device_budget_bytes + workspace_bytes(load),
                           .host_bytes = load.host_bytes,
                           .tables_bytes = tables_bytes(load)});
}

// Attention's outputs of the last layer for a batch's latest tokens.
std::vector<double> outputs_of(E2eMachine& machine, const E2eLoad& load) {
  const DecoderRows at = decoder_rows(load.model, machine.decoder().max_rows());
  const auto* elements =
      reinterpret_cast<const std::uint16_t*>(machine.decoder().memory().data() + at.outputs);
  std::vector<double> outputs;
  for (int i = 0; i < load.batch * load.model.q_heads * load.model.head_dim; ++i)
    outputs.push_back(from_fp16(elements[i]));
  return outputs;
}

double difference(const std::vector<double>& a, const std::vector<double>& b) {
  double square = 0, all = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    square += (a[i] - b[i]) * (a[i] - b[i]);
    all += b[i] * b[i];
  }
  return std::sqrt(square / all);
}

struct ServedOutputs {
  std::vector<double> cold, warm;
  Bytes streamed_bytes = 0;
  Tokens reused = 0;
};

ServedOutputs serve(const char* policy, double device_share) {
  const E2eLoad load = small_load(device_share);
  const auto machine = machine_for(load);
  E2eEngine engine(*machine, load, find_policy(policy).value(), measure_machine(*machine, load));
  ServedOutputs served;
  for (std::vector<double>* outputs : {&served.cold, &served.warm}) {
    for (int nth = 0; nth < load.batch; ++nth) served.reused += engine.prefill(nth).reused;
    engine.settle();
    for (int step = 0; step < load.decode_steps; ++step) engine.decode_step();
    *outputs = outputs_of(*machine, load);
    engine.release_all();
  }
  served.streamed_bytes = engine.counters().streamed_bytes;
  return served;
}

TEST(EndToEnd, IsTheSameWhereverKvLies) {
  const ServedOutputs resident = serve("fp16-resident", 2);
  EXPECT_EQ(resident.streamed_bytes, 0);
  EXPECT_TRUE(std::any_of(resident.cold.begin(), resident.cold.end(),
                          [](double element) { return std::abs(element) > 0.01; }));
  for (const char* policy : {"fp16-offload", "fp16-stream"}) {
    const ServedOutputs served = serve(policy, 0.6);
    EXPECT_GT(served.streamed_bytes, 0) << policy;
    EXPECT_LT(difference(served.cold, resident.cold), 5e-3) << policy;
    EXPECT_LT(difference(served.warm, resident.warm), 5e-3) << policy;
    EXPECT_EQ(served.reused, 2 * 256) << policy << ": images are computed once";
  }
  const ServedOutputs compressed = serve("uniform-int4", 0.6);
  EXPECT_GT(difference(compressed.cold, resident.cold), 1e-3);
  EXPECT_LT(difference(compressed.cold, resident.cold), 0.5);
}

TEST(EndToEnd, SaysWhatEachPolicyDid) {
  E2eCase options{.load = small_load(0.6),
                  .policies = {"fp16-offload", "fp16-stream", "text-centric"},
                  .rounds = 1};
  std::vector<std::string> told;
  const E2eReport report = bench_e2e(options, "modalkv bench e2e",
                                     [&](std::string_view what) { told.emplace_back(what); });
  EXPECT_EQ(told.size(), 2u + 3u);
  const E2eLoad& load = options.load;
  const Bytes token = kv_bytes_per_token(load.model, both(fp16()));
  const E2ePolicyResult& stream = *report.find("fp16-stream");
  EXPECT_GE(stream.streamed_bytes_a_step, load.batch * load.image_tokens * token);
  EXPECT_LT(report.find("fp16-offload")->streamed_bytes_a_step, stream.streamed_bytes_a_step);
  for (const E2ePolicyResult& result : report.policies) {
    EXPECT_EQ(result.reused_tokens, load.batch * load.image_tokens) << result.policy;
    EXPECT_GT(result.tpot_ms.median, 0);
    EXPECT_GT(result.predicted_step_ms, 0);
  }
  const auto json = report.json();
  ASSERT_EQ(json["policies"].size(), 3u);
  EXPECT_DOUBLE_EQ(json["policies"][0]["tpot_speedup_over_fp16-offload"].get<double>(), 1);
  EXPECT_NEAR(json["policies"][2]["tpot_speedup_over_fp16-stream"].get<double>(),
              stream.tpot_ms.median / report.policies[2].tpot_ms.median, 1e-9);
  const std::string table = report.table();
  for (const std::string& policy : options.policies) EXPECT_NE(table.find(policy), table.npos);
}

TEST(EndToEnd, SaysWhatIsWrong) {
  const auto message = [](E2eCase options) -> std::string {
    try {
      bench_e2e(options, "", [](std::string_view) {});
    } catch (const Error& error) {
      return error.what();
    }
    return "";
  };
  E2eCase options{.load = small_load(0.6), .policies = {"fp16-stream"}, .rounds = 1};
  E2eCase small = options, unknown = options, experts = options;
  small.load.device_budget_bytes = 64 * kKiB;
  EXPECT_NE(message(small).find("fp16-stream: no plan fits 0.1 MiB"), std::string::npos);
  unknown.policies = {"fp17"};
  EXPECT_NE(message(unknown).find("--policy 'fp17': expected some of"), std::string::npos);
  experts.load.model.experts = 8;
  EXPECT_NE(message(experts).find("experts"), std::string::npos);
}

}  // namespace
}  // namespace modalkv
