#include <gtest/gtest.h>

#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <utility>

#include "tests/tools/report/made_report.hpp"
#include "tools/report/report.hpp"

namespace modalkv {
namespace {

using namespace made_report;
using nlohmann::json;

json events(const Report& report) {
  return json::parse(timeline_json(report)).at("traceEvents");
}

TEST(TimelineJson, EventsHaveTheFieldsOfChromesFormat) {
  std::set<std::string> phases;
  for (const json& event : events(report())) {
    const std::string phase = event.at("ph");
    phases.insert(phase);
    EXPECT_TRUE(event.at("pid").is_number_integer());
    EXPECT_TRUE(event.at("name").is_string());
    if (phase == "M") {
      EXPECT_TRUE(event.at("args").at("name").is_string());
    } else {
      EXPECT_GE(event.at("ts").get<double>(), 0);
    }
    if (phase == "X") {
      EXPECT_GT(event.at("dur").get<double>(), 0);
      EXPECT_TRUE(event.at("tid").is_number_integer());
    }
    if (phase == "C") {
      for (const auto& [key, value] : event.at("args").items())
        EXPECT_TRUE(value.is_number()) << key;
    }
  }
  EXPECT_EQ(phases, (std::set<std::string>{"C", "M", "X"}));
}

TEST(TimelineJson, EveryPolicyIsANamedProcessWithNamedTracks) {
  std::map<int, std::string> processes;
  std::map<int, std::set<std::string>> tracks;
  for (const json& event : events(report())) {
    if (event.at("name") == "process_name") processes[event["pid"]] = event["args"]["name"];
    if (event.at("name") == "thread_name") tracks[event["pid"]].insert(event["args"]["name"]);
  }
  ASSERT_EQ(processes.size(), 2u);
  EXPECT_TRUE(processes.begin()->second.starts_with("fp16-stream"));
  EXPECT_TRUE(processes.rbegin()->second.starts_with("text-centric"));
  for (const auto& [process, names] : tracks)
    EXPECT_EQ(names, (std::set<std::string>{"compute", "host to device", "device to host",
                                            "CPU attention"}));
}

TEST(TimelineJson, SpansOfATrackDoNotOverlap) {
  std::map<std::pair<int, int>, double> until;
  int spans = 0;
  for (const json& event : events(report())) {
    if (event.at("ph") != "X") continue;
    ++spans;
    double& free = until[{event.at("pid"), event.at("tid")}];
    EXPECT_GE(event.at("ts").get<double>(), free - 1e-6) << event.dump();
    free = event.at("ts").get<double>() + event.at("dur").get<double>();
  }
  EXPECT_EQ(spans, 2 * (12 + 12 + 3));  // compute, host to device, device to host
}

// The format counts in microseconds.
TEST(TimelineJson, SpansLieWhereTheirStepsDo) {
  Report made = report();
  made.runs.resize(1);
  made.runs[0].result.window.resize(1);
  StepRecord& step = made.runs[0].result.window[0];
  step.begin_ns = 7'001'002'003;
  step.end_ns = step.begin_ns + 20 * kMillisecond;
  step.gpu_busy_ns = 1'234'067;
  step.h2d_busy_ns = step.d2h_busy_ns = 0;
  std::vector<json> spans;
  for (const json& event : events(made))
    if (event.at("ph") == "X") spans.push_back(event);
  ASSERT_EQ(spans.size(), 1u);
  EXPECT_NEAR(spans[0]["ts"].get<double>(), 7'001'002.003, 1e-6);
  EXPECT_NEAR(spans[0]["dur"].get<double>(), 1'234.067, 1e-6);
}

TEST(TimelineJson, CountersSayMemoryLinkUseAndRequests) {
  std::map<std::string, int> counters;
  for (const json& event : events(report())) {
    if (event.at("ph") != "C") continue;
    const std::string name = event.at("name");
    const json& args = event.at("args");
    ++counters[name];
    if (name == "KV GiB") {
      EXPECT_DOUBLE_EQ(args.at("GPU"), 1);
      EXPECT_DOUBLE_EQ(args.at("staging"), 0.25);
      EXPECT_DOUBLE_EQ(args.at("host"), 2);
      EXPECT_DOUBLE_EQ(args.at("reuse"), 0.5);
    } else if (name == "link use %") {
      EXPECT_TRUE(args.at("host to device") == 40.0 || args.at("host to device") == 100.0);
      EXPECT_LE(args.at("device to host").get<double>(), 100);
    } else {
      EXPECT_EQ(args.at("waiting").get<int>(), 2 * args.at("running").get<int>());
    }
  }
  EXPECT_EQ(counters,
            (std::map<std::string, int>{{"KV GiB", 24}, {"link use %", 24}, {"requests", 24}}));
}

}  // namespace
}  // namespace modalkv
