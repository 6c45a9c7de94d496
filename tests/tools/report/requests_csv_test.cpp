#include <gtest/gtest.h>

#include <map>
#include <sstream>
#include <string>
#include <vector>

#include "tests/tools/report/made_report.hpp"
#include "tools/report/report.hpp"

namespace modalkv {
namespace {

using namespace made_report;
using Row = std::map<std::string, std::string>;

std::vector<std::string> cells(const std::string& line) {
  std::vector<std::string> result(1);
  for (const char c : line) {
    if (c == ',') {
      result.emplace_back();
    } else {
      result.back() += c;
    }
  }
  return result;
}

std::vector<Row> rows(const std::string& csv) {
  std::istringstream lines(csv);
  std::string line;
  std::getline(lines, line);
  const auto header = cells(line);
  std::vector<Row> result;
  while (std::getline(lines, line)) {
    const auto values = cells(line);
    EXPECT_EQ(values.size(), header.size()) << line;
    Row row;
    for (std::size_t i = 0; i < std::min(values.size(), header.size()); ++i)
      row[header[i]] = values[i];
    result.push_back(row);
  }
  return result;
}

TEST(RequestsCsv, HasARowForEachRequestAndPolicy) {
  const Report made = report();
  const auto table = rows(requests_csv(made));
  ASSERT_EQ(table.size(), 8u);
  for (std::size_t i = 0; i < table.size(); ++i) {
    SCOPED_TRACE(i);
    EXPECT_EQ(table[i].at("policy"), i < 4 ? "fp16-stream" : "text-centric");
    EXPECT_EQ(table[i].at("request"), std::to_string(i % 4));
  }
}

TEST(RequestsCsv, NumbersAgreeWithTheOutcomes) {
  const Report made = report();
  const auto table = rows(requests_csv(made));
  for (std::size_t i = 0; i < table.size(); ++i) {
    SCOPED_TRACE(i);
    const Row& row = table[i];
    const RequestOutcome& outcome = made.runs[i / 4].result.outcomes[i % 4];
    EXPECT_EQ(row.at("state"), name(outcome.state));
    EXPECT_DOUBLE_EQ(std::stod(row.at("arrival_s")), static_cast<double>(outcome.arrival_ns) / 1e9);
    EXPECT_EQ(row.at("prompt_tokens"), std::to_string(outcome.prompt_tokens));
    EXPECT_EQ(row.at("output_tokens"), std::to_string(outcome.output_tokens));
    if (outcome.state != RequestState::completed) {
      for (const char* key : {"queue_ms", "ttft_ms", "tpot_ms", "e2el_ms"})
        EXPECT_EQ(row.at(key), "") << key;
      continue;
    }
    const RequestLatency latency = latency_of(outcome);
    EXPECT_EQ(row.at("queue_ms"), "1.000");
    EXPECT_NEAR(std::stod(row.at("ttft_ms")), latency.ttft_ms, 5e-4);
    EXPECT_NEAR(std::stod(row.at("e2el_ms")), latency.e2el_ms, 5e-4);
    if (outcome.output_tokens == 1) {
      EXPECT_EQ(row.at("tpot_ms"), "");
    } else {
      EXPECT_NEAR(std::stod(row.at("tpot_ms")), latency.tpot_ms.value(), 5e-4);
    }
  }
}

TEST(RequestsCsv, RoundsToMicroseconds) {
  Report made = report();
  RequestOutcome& outcome = made.runs[0].result.outcomes[0];
  outcome.arrival_ns = 61'000'005'000;
  outcome.first_scheduled_ns = outcome.arrival_ns + 7'600;
  outcome.first_token_ns = outcome.arrival_ns + 1'234'499;
  outcome.finish_ns = outcome.first_token_ns + 10 * 2'000'600;
  const Row row = rows(requests_csv(made))[0];
  EXPECT_EQ(row.at("arrival_s"), "61.000005");
  EXPECT_EQ(row.at("queue_ms"), "0.008");
  EXPECT_EQ(row.at("ttft_ms"), "1.234");
  EXPECT_EQ(row.at("tpot_ms"), "2.001");
  EXPECT_EQ(row.at("e2el_ms"), "21.240");
}

}  // namespace
}  // namespace modalkv
