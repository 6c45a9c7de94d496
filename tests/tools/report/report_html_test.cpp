#include <gtest/gtest.h>

#include <string>

#include "tests/tools/report/made_report.hpp"
#include "tools/report/report.hpp"
#include "tools/report/svg_chart.hpp"

namespace modalkv {
namespace {

using namespace made_report;

std::size_t count(const std::string& text, const std::string& part) {
  std::size_t found = 0;
  for (std::size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1))
    ++found;
  return found;
}

Report two_rates() {
  Report made = report();
  for (std::size_t i = 0; i < 2; ++i) {
    made.runs.push_back(made.runs[i]);
    made.runs.back().result.rate_scale = 2;
  }
  complete(made);
  return made;
}

TEST(ReportHtml, LoadsNothingFromAnywhere) {
  for (const Report& made : {report(), two_rates()}) {
    const std::string page = report_html(made);
    EXPECT_EQ(page.find("://"), std::string::npos);
    EXPECT_EQ(page.find("<script"), std::string::npos);
    for (const char* loads : {"src=", "href=", "srcset=", "data=", "src =", "href =", "url(",
                              "@import", "<link", "<iframe", "<object", "<embed", "<img"})
      EXPECT_EQ(page.find(loads), std::string::npos) << loads;
  }
}

TEST(ReportHtml, HasAFilledChartForEachPicture) {
  const std::string page = report_html(report());
  for (const char* caption : {"Time to first token", "Time per output token", "End to end",
                              "KV in GPU memory, staging included", "KV in host memory",
                              "Host-to-device link", "Requests waiting"}) {
    SCOPED_TRACE(caption);
    const std::size_t at = page.find(std::string("<figcaption>") + caption + "</figcaption><svg");
    ASSERT_NE(at, std::string::npos);
    const std::string figure = page.substr(at, page.find("</figure>", at) - at);
    EXPECT_EQ(count(figure, "<polyline"), 2u);
    EXPECT_EQ(figure.find("nan"), std::string::npos);
    EXPECT_EQ(figure.find("inf"), std::string::npos);
  }
  EXPECT_EQ(page.find("no data"), std::string::npos);
  EXPECT_EQ(count(page, ">SLO<"), 2u);  // TTFT and TPOT are set
}

TEST(ReportHtml, SeveralRatesAddChartsAgainstTheRate) {
  const std::string one = report_html(report()), two = report_html(two_rates());
  EXPECT_EQ(count(one, "<figure>"), 7u);
  EXPECT_EQ(count(two, "<figure>"), 10u);
  for (const char* caption :
       {"Median time to first token", "Mean time per output token", "Goodput"})
    EXPECT_NE(two.find(std::string("<figcaption>") + caption), std::string::npos) << caption;
  EXPECT_NE(two.find("text-centric x2"), std::string::npos);
}

TEST(ReportHtml, TagsAreBalancedAndNamesEscaped) {
  const std::string page = report_html(two_rates());
  for (const char* tag : {"figure", "svg", "table", "div", "p", "h2"}) {
    const std::string open = std::string("<") + tag;
    EXPECT_EQ(count(page, open + " ") + count(page, open + ">"),
              count(page, std::string("</") + tag + ">"))
        << tag;
  }
  EXPECT_NE(page.find("a&lt;b&gt;.jsonl"), std::string::npos);
  EXPECT_NE(page.find("--trace &lt;a&amp;b&gt;.jsonl"), std::string::npos);
  EXPECT_EQ(page.find("<b>"), std::string::npos);
}

TEST(ReportHtml, TableSaysWhatTheMetricsSay) {
  const std::string page = report_html(report());
  EXPECT_NE(page.find("fp16-stream <span class=warn>saturated</span><td>3<td>1<td>400.0<td>596.0"),
            std::string::npos);
  EXPECT_NE(page.find("<tr><td>text-centric<td>3<td>1<td>200.0"), std::string::npos);
  EXPECT_NE(page.find("<td>2.00x<td>4.00x<td>-<td>-</tr>"), std::string::npos);
}

// Drawn from y = 10 down: above a rule at the top its label would be cut off.
TEST(SvgChart, TheLabelOfARuleIsInsideThePicture) {
  for (const double at : {0.0, 25.0, 49.0, 50.0}) {
    SvgChart chart({.x_title = "rate", .y_title = "ms"});
    chart.line(0, {{0, 1}, {2, 30}});
    chart.horizontal_rule(at, "SLO");
    const std::string picture = chart.str();
    const std::size_t end = picture.find("\">SLO<");
    ASSERT_NE(end, std::string::npos);
    const std::size_t first = picture.rfind('"', end - 1) + 1;
    EXPECT_GE(std::stod(picture.substr(first, end - first)), 16) << at;
  }
}

}  // namespace
}  // namespace modalkv
