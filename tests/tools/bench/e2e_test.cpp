// Serving a small model end to end on memory of this machine: what is computed does not depend on
// where KV lies, and the report says what was done. How long anything took decides nothing.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>

#include "kernels/number.hpp"
#include "modalkv/error.hpp"
#include "scheduler/policies.hpp"
#include "tests/offload/devices.hpp"
#include "tools/bench/e2e/e2e_case.hpp"
#include "tools/bench/e2e/machine_profile.hpp"
#include "tools/bench/random_rows.hpp"

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
               .chunk_tokens = 40,
               .decode_steps = 4};
  load.device_budget_bytes =
      static_cast<Bytes>(device_share * static_cast<double>(load.kv_bytes()));
  load.host_bytes = 2 * load.kv_bytes() + 4 * kMiB;
  return load;
}

std::unique_ptr<E2eMachine> machine_for(const E2eLoad& load) {
  return host_e2e_machine({.model = load.model,
                           .max_rows = load.chunk_tokens,
                           .device_bytes = load.device_budget_bytes + workspace_bytes(load) +
                                           inflation_bytes(load) + 4 * kKiB,
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
  std::int64_t inflated_pages = 0;
};

ServedOutputs serve(const char* policy, double device_share) {
  const E2eLoad load = small_load(device_share);
  const auto machine = machine_for(load);
  const std::string name(policy);
  const bool inflates = name.ends_with("-inflated");
  const E2ePolicy served_policy{name, find_policy(name.substr(0, name.find("-inflated"))).value(),
                                inflates};
  E2eEngine engine(*machine, load, served_policy, measure_machine(*machine, load));
  ServedOutputs served;
  for (std::vector<double>* outputs : {&served.cold, &served.warm}) {
    for (int nth = 0; nth < load.batch; ++nth) served.reused += engine.prefill(nth).reused;
    engine.settle();
    for (int step = 0; step < load.decode_steps; ++step) engine.decode_step();
    *outputs = outputs_of(*machine, load);
    engine.release_all();
  }
  served.inflated_pages = engine.inflated_pages();
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
  EXPECT_EQ(compressed.inflated_pages, 0);
  const ServedOutputs inflated = serve("uniform-int4-inflated", 0.6);
  EXPECT_GT(inflated.inflated_pages, 0);
  EXPECT_LT(difference(inflated.cold, resident.cold), 0.5);
}

// Inflated numbers are those that packed pages stand for, rounded to 16 bits.
TEST(EndToEnd, InflatedPagesMeanWhatPackedOnesDo) {
  constexpr Tokens kTokens = 64 + 64 + 20, kPages = 3;
  const PageShape shape{64, 2, 64, both(int4_grouped(64))};
  const Bytes page = page_bytes(shape), row = Bytes{2} * 2 * 64;
  Host world;
  InflatingDevice device(world.device);
  std::vector<std::byte> memory(std::size_t{2} << 20);
  const RegisteredSpace space = device.register_space(
      {SpaceInfo::Kind::device, static_cast<Bytes>(memory.size()), memory.data()});
  Bytes used = 0;
  const auto take = [&](Bytes bytes) {
    const Address taken{space.space, used, bytes};
    used += round_up(bytes, 256);
    return taken;
  };
  const auto at = [&]<typename T>(T, const Address& address) {
    return reinterpret_cast<T*>(memory.data() + address.offset);
  };
  device.use(take(InflatingDevice::scratch_bytes(shape, 2 * kPages)),
             take(InflatingDevice::tables_bytes(kPages)));
  const Address rows = take(kTokens * row), pages = take(kPages * page),
                table = take(kPages * kPageTableEntryBytes), queries = take(Bytes{4} * 64 * 2),
                partials[] = {take(partial_bytes(4, 64)), take(partial_bytes(4, 64)),
                              take(partial_bytes(4, 64))};
  std::mt19937_64 random(3);
  const auto fill = [&](const Address& address) {
    const auto elements =
        random_elements(static_cast<std::size_t>(address.bytes / 2), NumberFormat::fp16, 1, random);
    std::copy(elements.begin(), elements.end(), at(std::uint16_t{}, address));
  };
  fill(rows);
  fill(queries);
  std::vector<Op> ops;
  for (Tokens i = 0; i < kPages; ++i) {
    at(std::int64_t{}, table)[i] = (kPages - 1 - i) * page;
    Encode encode;
    encode.tokens = std::min<Tokens>(64, kTokens - 64 * i);
    encode.keys = encode.values = {rows.space, rows.offset + 64 * i * row, encode.tokens * row};
    encode.page = {pages.space, pages.offset + (kPages - 1 - i) * page, page};
    encode.shape = shape;
    ops.push_back(encode);
  }
  Attend attend;
  attend.queries = queries;
  attend.pages = pages;
  attend.page_table = table;
  attend.partials = partials[0];
  attend.shape = shape;
  attend.tokens = kTokens;
  attend.query_heads = 4;
  attend.query_tokens = 1;
  attend.logit_scale = 0.125f;
  const QueueId compute = find_queue(device, QueueKind::compute).value();
  const auto run = [&](Device& on, std::span<const Op> what) {
    ASSERT_EQ(on.submit(compute, what, {}).status, Status::ok);
    const auto ended = on.next_completion((60 * kSecond));
    ASSERT_TRUE(ended && ended->status == Status::ok);
  };
  ops.push_back(attend);
  run(world.device, ops);
  std::vector<Op> two{attend, attend};
  for (std::size_t i = 0; i < two.size(); ++i) std::get<Attend>(two[i]).partials = partials[i + 1];
  run(device, two);
  EXPECT_EQ(device.inflated_pages(), 2 * kPages);
  for (const Address& inflated : {partials[1], partials[2]}) {
    std::vector<double> packed, again;
    for (int i = 0; i < 4 * 66; ++i) {
      packed.push_back(at(float{}, partials[0])[i]);
      again.push_back(at(float{}, inflated)[i]);
    }
    EXPECT_LT(difference(again, packed), 3e-3);
  }
  two.push_back(two.front());
  EXPECT_EQ(device.submit(compute, two, {}).status, Status::rejected) << "more than its memory";
}

TEST(EndToEnd, SaysWhatEachPolicyDid) {
  E2eCase options{.load = small_load(0.7),
                  .place = E2ePlace::host,
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
  E2eCase options{
      .load = small_load(0.7), .place = E2ePlace::host, .policies = {"fp16-stream"}, .rounds = 1};
  E2eCase small = options, unknown = options, experts = options;
  small.load.device_budget_bytes = 64 * kKiB;
  EXPECT_NE(message(small).find("fp16-stream: no plan fits 0.1 MiB"), std::string::npos);
  // And names a budget that is enough, hardly more than that.
  const auto says_room = [&](double share) {
    small.load.device_budget_bytes =
        static_cast<Bytes>(share * static_cast<double>(small.load.kv_bytes()));
    try {
      require_room(small.load, {"fp16-stream", find_policy("fp16-stream").value()});
    } catch (const Error& error) {
      return std::string(error.what());
    }
    return std::string();
  };
  const std::string told = says_room(0.1);
  const std::size_t at = told.find("--device-kv-share of ");
  ASSERT_NE(at, told.npos) << told;
  const double enough = std::stod(told.substr(at + 21));
  EXPECT_EQ(says_room(enough), "");
  EXPECT_NE(says_room(0.3 * enough), "");
  small.load.host_bytes = kMiB / 4;
  EXPECT_NE(says_room(1).find("--host-kv-bytes"), told.npos) << says_room(1);
  unknown.policies = {"fp17"};
  EXPECT_NE(message(unknown).find("--policy 'fp17': expected some of"), std::string::npos);
  experts.load.model.experts = 8;
  EXPECT_NE(message(experts).find("experts"), std::string::npos);
}

}  // namespace
}  // namespace modalkv
