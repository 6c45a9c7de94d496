#include <gtest/gtest.h>

#include <sstream>
#include <string>

#include "tests/tools/report/made_report.hpp"
#include "tools/report/report.hpp"

namespace modalkv {
namespace {

using namespace made_report;

std::string line_with(const std::string& text, const std::string& part) {
  std::istringstream lines(text);
  std::string line;
  while (std::getline(lines, line))
    if (line.find(part) != std::string::npos) return line;
  return "";
}

bool has(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

TEST(ComparisonTable, MarksSaturationWhereItIs) {
  const std::string table = comparison_table(report());
  EXPECT_TRUE(line_with(table, "fp16-stream  ").ends_with("SATURATED")) << table;
  EXPECT_FALSE(has(line_with(table, "text-centric"), "SATURATED"));
  EXPECT_TRUE(has(table, "SATURATED: requests arrive faster than"));
  Report calm = report();
  calm.runs[0].result.saturated = false;
  EXPECT_FALSE(has(comparison_table(calm), "SATURATED"));
}

TEST(ComparisonTable, ShowsLatenciesThroughputAndRatios) {
  const std::string row = line_with(comparison_table(report()), "text-centric");
  std::istringstream words(row);
  std::string all, word;
  while (words >> word) all += word + " ";
  // policy, done (not run), TTFT mean and p99, TPOT mean and p99, tokens/s, good/s, bits, GiB, GiB
  EXPECT_EQ(all,
            "text-centric 3 (-1) 200 ms 298 ms 15.0 ms 19.9 ms 4 0.38 6.50 1.25 2.00 2.00x 4.00x ");
  EXPECT_FALSE(has(comparison_table(report()), "offload")) << "a baseline that was not run";
}

TEST(ComparisonTable, SaysWhatItLeavesOut) {
  const std::string table = comparison_table(report());
  EXPECT_TRUE(has(table, "1 requests exceed the model's context of 4096 tokens"));
  EXPECT_TRUE(has(table, "3 bad rows of the trace were left out"));
  EXPECT_TRUE(has(table, "the 3 requests that all policies completed"));
  EXPECT_TRUE(has(table, "Simulated, not measured"));
  EXPECT_TRUE(has(table, "Quality: not measured here"));
  Report large = report();
  large.runs[1].result.outcomes[0] = refused(RequestState::too_large, 0, 100);
  complete(large);
  EXPECT_TRUE(
      has(comparison_table(large), "text-centric: 1 requests need more KV than it can hold"));
  EXPECT_TRUE(has(comparison_table(large), "the 2 requests that all policies completed"));
}

TEST(ComparisonTable, SaysThatAPerturbedMachineIsOne) {
  Report made = report();
  made.perturb = 0.2;
  EXPECT_TRUE(has(comparison_table(made), "(machine perturbed by up to 20 %)"));
}

}  // namespace
}  // namespace modalkv
