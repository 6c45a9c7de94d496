// The admin server over real sockets: alone, and in a runtime whose engine goes on meanwhile.
#include "runtime/admin_server.hpp"

#include <gtest/gtest.h>

#include <atomic>
#include <fstream>
#include <nlohmann/json.hpp>
#include <thread>
#include <vector>

#include "scheduler/policies.hpp"
#include "tests/runtime/http_client.hpp"
#include "tests/runtime/prometheus_reader.hpp"
#include "tests/scheduler/sample_machine.hpp"

namespace modalkv {
namespace {

AdminSnapshot first_snapshot() {
  return {.at = std::chrono::steady_clock::now(),
          .metrics = RuntimeMetrics{},
          .state = "first state\n",
          .groups = std::vector<TracedGroup>{}};
}

// A server without a runtime; the test is the engine.
struct Served {
  explicit Served(const AdminLimits& limits = {})
      : server({}, standard_queues(1), first_snapshot(), limits) {}

  /// Answers what is asked for until it is gone.
  class EngineThread {
   public:
    explicit EngineThread(AdminServer& server)
        : thread_([&server](const std::stop_token& stop) {
            for (std::int64_t call = 0; !stop.stop_requested(); ++call) {
              if (!server.wanted()) {
                std::this_thread::yield();
                continue;
              }
              const AdminServer::Wanted wanted = server.take_wanted();
              AdminSnapshot snapshot{.at = std::chrono::steady_clock::now()};
              if (wanted.metrics) {
                snapshot.metrics.emplace();
                snapshot.metrics->counters.attends = call;
              }
              if (wanted.state) snapshot.state = "state of call " + std::to_string(call) + "\n";
              if (wanted.trace) snapshot.groups.emplace();
              server.publish(std::move(snapshot));
            }
          }) {}

   private:
    std::jthread thread_;
  };

  AdminServer server;
};

TEST(AdminServer, ServesItsPages) {
  Served served;
  const Served::EngineThread engine(served.server);
  const std::uint16_t port = served.server.port();
  EXPECT_GT(port, 0);
  const HttpAnswer metrics = http_get(port, "/metrics");
  EXPECT_EQ(metrics.status, 200);
  EXPECT_NE(metrics.head.find("Content-Type: text/plain; version=0.0.4; charset=utf-8\r\n"),
            std::string::npos)
      << metrics.head;
  EXPECT_GE(PrometheusReader::read(metrics.body).value("modalkv_attends_total"), 0);
  EXPECT_TRUE(http_get(port, "/state").body.starts_with("state of call "));
  EXPECT_EQ(http_get(port, "/healthz?any=thing").body, "ok\n");
  const HttpAnswer trace = http_get(port, "/trace");
  EXPECT_NE(trace.head.find("application/json"), std::string::npos);
  EXPECT_EQ(nlohmann::json::parse(trace.body).at("traceEvents").size(),
            1 + standard_queues(1).size());
}

TEST(AdminServer, RefusesWhatItDoesNotHaveInOneLine) {
  Served served;
  const std::uint16_t port = served.server.port();
  const auto refused = [](const HttpAnswer& answer, int status) {
    EXPECT_EQ(answer.status, status) << answer.body;
    EXPECT_EQ(std::count(answer.body.begin(), answer.body.end(), '\n'), 1);
    EXPECT_TRUE(answer.body.ends_with('\n'));
  };
  refused(http_get(port, "/"), 404);
  refused(http_get(port, "/metrics/"), 404);
  refused(http_get(port, "/../etc/passwd"), 404);
  refused(http_get(port, "/metrics", "POST"), 405);
  refused(http_get(port, "/metrics", "BREW"), 405);
  EXPECT_NE(http_get(port, "/state", "DELETE").head.find("Allow: GET\r\n"), std::string::npos);
  const auto raw = [&](std::string_view bytes) {
    HttpConnection connection(port);
    EXPECT_TRUE(connection.send(bytes));
    return parse_answer(connection.receive());
  };
  refused(raw("garbage\r\n\r\n"), 400);
  refused(raw(std::string("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\r\n\r\n", 14)), 400);
  refused(raw("GET /metrics HTTP/9.9\r\n\r\n"), 400);
  refused(raw("GET /metrics HTTP/1.1\r\nno colon\r\n\r\n"), 400);
  refused(raw("GET /" + std::string(20'000, 'a') + " HTTP/1.1\r\n\r\n"), 431);
  EXPECT_EQ(http_get(port, "/healthz").status, 200) << "and goes on";
}

TEST(AdminServer, WaitsForTheEnginesThreadWithinABoundAndSaysHowOldItsAnswerIs) {
  Served served({.fresh_ns = 100 * kMillisecond});
  const std::uint16_t port = served.server.port();
  const HttpAnswer stale = http_get(port, "/metrics");
  EXPECT_EQ(stale.status, 200);
  EXPECT_GE(PrometheusReader::read(stale.body).value("modalkv_snapshot_age_seconds"), 0.1);
  EXPECT_EQ(http_get(port, "/state").body, "first state\n");
  EXPECT_TRUE(served.server.wanted());
  EXPECT_TRUE(served.server.take_wanted().state);
  EXPECT_FALSE(served.server.wanted());
}

TEST(AdminServer, AFreshAnswerIsYoungerThanItsRequest) {
  // Nobody waits this long: every answer is one that was made for it.
  Served served({.client_ns = 600 * kSecond, .fresh_ns = 600 * kSecond});
  const Served::EngineThread engine(served.server);
  double last = -1;
  for (int i = 0; i < 20; ++i) {
    const double call = PrometheusReader::read(http_get(served.server.port(), "/metrics").body)
                            .value("modalkv_attends_total");
    EXPECT_GT(call, last);
    last = call;
  }
}

TEST(AdminServer, SlowAndSilentClientsAreCutOffAndDelayNobodyForLong) {
  Served served({.connections = 4, .client_ns = 300 * kMillisecond, .fresh_ns = 1});
  const std::uint16_t port = served.server.port();
  std::vector<std::unique_ptr<HttpConnection>> slow;
  for (int i = 0; i < 10; ++i) {
    slow.push_back(std::make_unique<HttpConnection>(port));
    ASSERT_TRUE(slow.back()->connected());
    if (i % 2 == 0) {
      EXPECT_TRUE(slow.back()->send("GET /metr"));
    }
  }
  EXPECT_EQ(http_get(port, "/healthz").status, 200) << "after those before it were cut off";
  for (const auto& connection : slow) {
    EXPECT_EQ(connection->receive(), "");
    EXPECT_TRUE(connection->closed_by_server());
  }
}

TEST(AdminServer, ClosesWhileClientsAreThereAndGivesItsPortBack) {
  AdminConfig config;
  std::vector<std::unique_ptr<HttpConnection>> clients;
  {
    Served served({.client_ns = 600 * kSecond, .fresh_ns = 600 * kSecond});
    config.port = served.server.port();
    for (int i = 0; i < 20; ++i) {
      clients.push_back(std::make_unique<HttpConnection>(config.port));
      if (i % 3 > 0) {
        EXPECT_TRUE(clients.back()->send(i % 3 == 1 ? "GET /metrics HTTP/1.1\r\n\r\n" : "GET"));
      }
    }
    while (!served.server.wanted()) std::this_thread::yield();
  }
  for (const auto& client : clients) {
    EXPECT_EQ(client->receive(), "");
    EXPECT_TRUE(client->closed_by_server());
  }
  AdminServer again(config, standard_queues(1), first_snapshot());
  EXPECT_EQ(again.port(), config.port);
}

TEST(AdminServer, SaysWhyItCannotListen) {
  const auto complaint = [](const AdminConfig& config) -> std::string {
    try {
      AdminServer server(config, standard_queues(1), first_snapshot());
    } catch (const Error& error) {
      return error.what();
    }
    return "";
  };
  Served served;
  const std::string taken = complaint({.port = served.server.port()});
  EXPECT_NE(taken.find("cannot listen on 127.0.0.1 port"), std::string::npos) << taken;
  EXPECT_NE(taken.find("in use"), std::string::npos) << taken;
  EXPECT_NE(complaint({.address = "nowhere"}).find("cannot listen on nowhere"), std::string::npos);
  EXPECT_NE(complaint({.address = "203.0.113.1"}), "") << "an address of somebody else";
}

TEST(AdminServer, ManyClientsWhileTheEngineGoesOn) {
  Served served({.connections = 3});
  const Served::EngineThread engine(served.server);
  std::atomic<int> good{0};
  {
    std::vector<std::jthread> clients;
    for (int c = 0; c < 6; ++c)
      clients.emplace_back([&, c] {
        const char* paths[] = {"/metrics", "/state", "/trace"};
        for (int i = 0; i < 10; ++i)
          if (http_get(served.server.port(), paths[(c + i) % 3]).status == 200) ++good;
      });
  }
  EXPECT_EQ(good, 60);
}

RuntimeConfig served_config() {
  RuntimeConfig config;
  config.layers = 3;
  config.query_heads = 4;
  config.kv_heads = 2;
  config.head_dim = 64;
  config.policy.selection = Selection::text_centric;
  config.policy.visual_low = both(int4_token_head());
  config.policy.places = {true, true, false};
  config.device_bytes = 8 * kMiB;
  config.host_bytes = 16 * kMiB;
  config.tables_bytes = kMiB;
  config.staging_slot_bytes = kMiB;
  config.partials_bytes = kMiB;
  config.attention_threads = 1;
  config.admin.emplace();
  return config;
}

// An engine that decodes.
class Engine {
 public:
  explicit Engine(Runtime& runtime) : runtime_(runtime) {
    runtime_.register_memory(std::as_writable_bytes(std::span(rows_)));
    const Segment prompt[] = {{TokenClass::text, 8}, {TokenClass::image, 128}};
    sequence_ = runtime_.begin(prompt).value();
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
  EXPECT_EQ(page.value("modalkv_degraded", {{"mode", "device_is_host_memory"}}), 1);
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
