#include "tools/report/svg_chart.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>

namespace modalkv {
namespace {

constexpr double kWidth = 360, kHeight = 230, kLeft = 46, kRight = 12, kTop = 10, kBottom = 38;
constexpr std::array<std::string_view, 7> kColors{"#0072b2", "#e69f00", "#cc79a7", "#56b4e9",
                                                  "#009e73", "#d55e00", "#8c8c8c"};

/// One axis: data to pixels, and the ticks between.
class Scale {
 public:
  Scale(double low, double high, double from, double to, bool logarithmic)
      : low_(low), high_(high), from_(from), to_(to), log_(logarithmic) {
    if (log_) {
      low_ = std::pow(10, std::floor(std::log10(low_)));
      high_ = std::pow(10, std::ceil(std::log10(std::max(high_, low_ * 1.01))));
    } else if (high_ <= low_) {
      high_ = low_ + 1;
    } else {
      high_ = std::ceil(high_ / step()) * step();
    }
  }
  double at(double value) const {
    const double position = log_ ? std::log(std::max(value, low_) / low_) / std::log(high_ / low_)
                                 : (value - low_) / (high_ - low_);
    return from_ + std::clamp(position, 0.0, 1.0) * (to_ - from_);
  }
  std::vector<double> ticks() const {
    std::vector<double> result;
    if (log_) {
      const double decades = std::log10(high_ / low_);
      const double stride = std::pow(10, std::max(1.0, std::ceil(decades / 5)));
      for (double tick = low_; tick <= high_ * 1.001; tick *= stride) result.push_back(tick);
    } else {
      for (int i = 0; low_ + i * step() <= high_ + step() / 100; ++i)
        result.push_back(low_ + i * step());
    }
    return result;
  }

 private:
  double step() const {  // 1, 2 or 5 of a decade: four to eight ticks
    const double raw = (high_ - low_) / 5, decade = std::pow(10, std::floor(std::log10(raw)));
    const double unit = raw / decade;
    return decade * (unit < 1.5 ? 1 : unit < 3.5 ? 2 : unit < 7.5 ? 5 : 10);
  }
  double low_, high_, from_, to_;
  bool log_;
};

std::string tick_label(double value) {
  if (value >= 1e6) return fmt::format("{:g}M", value / 1e6);
  if (value >= 1e4) return fmt::format("{:g}k", value / 1e3);
  return fmt::format("{:g}", std::abs(value) < 1e-12 ? 0.0 : value);
}

}  // namespace

std::string_view SvgChart::color(std::size_t series) {
  return kColors[series % kColors.size()];
}
bool SvgChart::dashed(std::size_t series) {
  return series >= kColors.size();
}

void SvgChart::line(std::size_t series, std::vector<SvgPoint> points) {
  lines_.push_back({series, std::move(points)});
}

std::string SvgChart::str() const {
  double least_x = INFINITY, most_x = -INFINITY, least_y = INFINITY, most_y = 0;
  for (const Line& line : lines_)
    for (const SvgPoint& point : line.points) {
      least_x = std::min(least_x, point.x);
      most_x = std::max(most_x, point.x);
      least_y = std::min(least_y, point.y);
      most_y = std::max(most_y, point.y);
    }
  for (const Rule& rule : vertical_) most_x = std::max(most_x, rule.at);
  for (const Rule& rule : horizontal_) most_y = std::max(most_y, rule.at);
  if (!(least_x <= most_x)) return "<p>no data</p>";
  const Scale x(axes_.log_x ? least_x : std::min(0.0, least_x), most_x, kLeft, kWidth - kRight,
                axes_.log_x);
  const Scale y(axes_.log_y ? std::max(1e-3, least_y) : 0, most_y, kHeight - kBottom, kTop,
                axes_.log_y);

  std::string out =
      fmt::format("<svg viewBox=\"0 0 {:g} {:g}\" role=img aria-label=\"{} against {}\">", kWidth,
                  kHeight, axes_.y_title, axes_.x_title);
  for (const double tick : y.ticks())
    out += fmt::format(
        "<line class=axis x1=\"{:g}\" x2=\"{:g}\" y1=\"{:.1f}\" y2=\"{:.1f}\"/><text x=\"{:g}\" "
        "y=\"{:.1f}\" text-anchor=end>{}</text>",
        kLeft, kWidth - kRight, y.at(tick), y.at(tick), kLeft - 5, y.at(tick) + 4,
        tick_label(tick));
  for (const double tick : x.ticks())
    out += fmt::format("<text x=\"{:.1f}\" y=\"{:g}\" text-anchor=middle>{}</text>", x.at(tick),
                       kHeight - kBottom + 15, tick_label(tick));
  out += fmt::format("<text x=\"{:g}\" y=\"{:g}\" text-anchor=end>{}</text>", kWidth - kRight,
                     kHeight - 6, axes_.x_title);
  out += fmt::format("<text x=\"{:g}\" y=\"{:g}\">{}</text>", kLeft, kHeight - 6, axes_.y_title);
  const auto rule = [&](double x1, double y1, double x2, double y2, const std::string& label) {
    out += fmt::format(
        "<line x1=\"{:.1f}\" y1=\"{:.1f}\" x2=\"{:.1f}\" y2=\"{:.1f}\" stroke=\"#b91c1c\" "
        "stroke-dasharray=\"4 3\"/><text x=\"{:.1f}\" y=\"{:.1f}\">{}</text>",
        x1, y1, x2, y2, x1 + 4, y1 + (y1 == y2 && y1 > kTop + 12 ? -4 : 12), label);
  };
  for (const Rule& at : vertical_)
    rule(x.at(at.at), kTop, x.at(at.at), kHeight - kBottom, at.label);
  for (const Rule& at : horizontal_)
    rule(kLeft, y.at(at.at), kWidth - kRight, y.at(at.at), at.label);
  for (const Line& line : lines_) {
    out += fmt::format("<polyline stroke=\"{}\"{} points=\"", color(line.series),
                       dashed(line.series) ? " stroke-dasharray=\"6 3\"" : "");
    for (const SvgPoint& point : line.points)
      out += fmt::format("{:.1f},{:.1f} ", x.at(point.x), y.at(point.y));
    out += "\"/>";
  }
  return out + "</svg>";
}

}  // namespace modalkv
