// The admin server over real sockets, without a runtime.
#include "runtime/admin_server.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>
#include <vector>

#include "tests/runtime/http_client.hpp"
#include "tests/runtime/prometheus_reader.hpp"

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

}  // namespace
}  // namespace modalkv
