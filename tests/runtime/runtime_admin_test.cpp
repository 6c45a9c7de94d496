// A runtime that is watched while its engine goes on.
#include <gtest/gtest.h>

#include <atomic>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "modalkv/runtime.hpp"
#include "tests/runtime/http_client.hpp"
#include "tests/runtime/prometheus_reader.hpp"
#include "tests/runtime/small_runtime.hpp"
#include "tests/scheduler/sample_machine.hpp"

namespace modalkv {
namespace {

RuntimeConfig served_config() {
  RuntimeConfig config = small_runtime_config(3);
  config.admin.emplace();
  return config;
}

// An engine that decodes.
class Engine {
 public:
  explicit Engine(Runtime& runtime) : runtime_(runtime) {
    runtime_.register_memory(std::as_writable_bytes(std::span(rows_)));
    const Segment prompt[] = {{TokenClass::text, 8}, {TokenClass::image, 128}};
    sequence_ = runtime_.begin(prompt).value().sequence;
    step(136);
  }
  void step(Tokens tokens) {
    const Address rows = runtime_.address(rows_.data(), tokens * 2 * 64 * 2);
    const Address queries = runtime_.address(rows_.data(), 4 * 64 * 2);
    const Address outputs = runtime_.address(rows_.data() + rows_.size() / 2, 4 * 64 * 2);
    for (int layer = 0; layer < 3; ++layer) {
      const AppendRequest append{sequence_, tokens, rows, rows};
      ASSERT_EQ(runtime_.append({&append, 1}, layer), Status::ok);
      const AttendRequest attend{sequence_, 1, queries, outputs};
      const Attended attended = runtime_.attend({&attend, 1}, layer);
      ASSERT_EQ(attended.status, Status::ok);
      ASSERT_EQ(runtime_.wait(attended.step, 10 * kSecond), Status::ok);
    }
  }

 private:
  Runtime& runtime_;
  std::vector<std::uint16_t> rows_ = std::vector<std::uint16_t>(64 * 1024);
  SequenceId sequence_{};
};

// What a client in another thread gets while the engine decodes.
HttpAnswer get_while_decoding(Runtime& runtime, Engine& engine, const std::string& path) {
  std::atomic<bool> done{false};
  HttpAnswer answer;
  std::jthread client([&] {
    answer = http_get(runtime.admin_port(), path);
    done = true;
  });
  while (!done && !testing::Test::HasFailure()) engine.step(1);
  client.join();
  return answer;
}

TEST(RuntimeAdmin, ShowsARunningRuntime) {
  Runtime runtime(served_config());
  Engine engine(runtime);
  const HttpAnswer answer = get_while_decoding(runtime, engine, "/metrics");
  ASSERT_EQ(answer.status, 200);
  const PrometheusPage page = PrometheusReader::read(answer.body);
  EXPECT_GE(page.value("modalkv_appended_tokens_total"), 3 * 136);
  EXPECT_EQ(page.sum("modalkv_kv_bytes", {{"tier", "device"}}),
            page.sum("modalkv_pool_used_bytes", {{"tier", "device"}}) -
                page.sum("modalkv_pool_retired_bytes", {{"tier", "device"}}));
  EXPECT_GT(page.sum("modalkv_kv_pages", {{"modality", "visual"}}), 0);
  EXPECT_GT(page.sum("modalkv_queue_busy_seconds_total", {{"queue", "compute"}}), 0);
  EXPECT_GT(page.value("modalkv_decode_steps_total"), 0);
  EXPECT_GT(page.value("modalkv_decode_step_actual_seconds"), 0);
  EXPECT_EQ(page.value("modalkv_sequences", {{"state", "running"}}), 1);
  EXPECT_EQ(page.value("modalkv_degraded", {{"mode", "device_is_host_memory"}}),
            gpu_of_tests() ? 0 : 1);
  EXPECT_LT(page.value("modalkv_snapshot_age_seconds"), 60);
  EXPECT_TRUE(get_while_decoding(runtime, engine, "/state").body.find("device pages: ") !=
              std::string::npos);
}

TEST(RuntimeAdmin, TracesTheLatestSteps) {
  RuntimeConfig config = served_config();
  config.admin->trace_steps = 4;
  Runtime runtime(config);
  Engine engine(runtime);
  for (int i = 0; i < 20; ++i) engine.step(1);
  const HttpAnswer answer = get_while_decoding(runtime, engine, "/trace");
  const auto json = nlohmann::json::parse(answer.body);
  std::map<std::uint64_t, std::set<int>> layers;
  for (const auto& event : json.at("traceEvents"))
    if (event.at("ph") == "X" && event.at("name") == "attend")
      layers[event.at("args").at("step").get<std::uint64_t>()].insert(
          event.at("args").at("layer").get<int>());
  EXPECT_GE(layers.size(), 3u);
  EXPECT_LE(layers.size(), 4u);
  EXPECT_GE(layers.begin()->first, 16u);
  EXPECT_EQ(std::next(layers.begin())->second, (std::set<int>{0, 1, 2}));
}

TEST(RuntimeAdmin, IsOffUnlessAskedForAndMetricsCanBeHadWithoutIt) {
  RuntimeConfig config = served_config();
  config.admin.reset();
  Runtime runtime(config);
  Engine engine(runtime);
  EXPECT_EQ(runtime.admin_port(), 0);
  const PrometheusPage page = PrometheusReader::read(runtime.metrics());
  EXPECT_EQ(page.value("modalkv_appended_tokens_total"), 3 * 136);
  EXPECT_FALSE(page.types.contains("modalkv_decode_steps_total"));
}

TEST(RuntimeAdmin, APortThatIsTakenEndsTheOpening) {
  Runtime runtime(served_config());
  RuntimeConfig config = served_config();
  config.admin->port = runtime.admin_port();
  EXPECT_THROW(Runtime{config}, Error);
}

// The profile is of a machine that is not this one: steps drift, and the runtime plans again for
// the machine that it finds.
TEST(RuntimeAdmin, PlansAgainWhenStepsDriftAndSaysWhy) {
  ModelGeometry model = sample_model();
  model.layers = 3, model.q_heads = 4, model.kv_heads = 2, model.head_dim = 64;
  HardwareProfile hardware = sample_hardware();
  hardware.gpu.step_host_ns = {3600e9};  // steps of an hour
  for (const int ranks : {1, 2}) {
    RuntimeConfig config = served_config();
    config.tensor_parallel_ranks = ranks;
    Runtime runtime(config);
    Engine engine(runtime);
    ASSERT_TRUE(runtime.replan(model, hardware).has_value());
    for (int i = 0; i < 100; ++i) engine.step(1);
    const PrometheusPage page = PrometheusReader::read(runtime.metrics());
    EXPECT_EQ(page.value("modalkv_plans_total", {{"cause", "asked"}}), 1);
    EXPECT_EQ(page.value("modalkv_plans_total", {{"cause", "drift"}}), ranks == 1 ? 1 : 0)
        << runtime.plan_history();
    EXPECT_EQ(runtime.plan_history().find("drift (steps take") != std::string::npos, ranks == 1);
    EXPECT_NE(runtime.describe().find(runtime.plan_history()), std::string::npos);
    EXPECT_GT(page.value("modalkv_decode_step_predicted_seconds_total"), 3600);
  }
}

}  // namespace
}  // namespace modalkv
