// A small line chart as inline SVG.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace modalkv {

struct SvgPoint {
  double x = 0, y = 0;
};

class SvgChart {
 public:
  struct Axes {
    std::string x_title{}, y_title{};
    bool log_x = false;  ///< what is not positive is drawn at the edge then
    bool log_y = false;
  };

  explicit SvgChart(Axes axes) : axes_(std::move(axes)) {}
  /// `series` chooses color and dash, the same in every chart.
  void line(std::size_t series, std::vector<SvgPoint> points);
  void vertical_rule(double x, std::string label) { vertical_.push_back({x, std::move(label)}); }
  void horizontal_rule(double y, std::string label) {
    horizontal_.push_back({y, std::move(label)});
  }
  std::string str() const;

  /// Of the Okabe-Ito palette, told apart with any color vision; series past it repeat it dashed.
  static std::string_view color(std::size_t series);
  static bool dashed(std::size_t series);

 private:
  struct Line {
    std::size_t series;
    std::vector<SvgPoint> points;
  };
  struct Rule {
    double at;
    std::string label;
  };

  Axes axes_;
  std::vector<Line> lines_;
  std::vector<Rule> vertical_, horizontal_;
};

}  // namespace modalkv
