#include "runtime/prometheus.hpp"

#include <fmt/format.h>

#include <cstdlib>

namespace modalkv {
namespace {

std::string escaped(std::string_view text, bool quotes) {
  std::string result;
  for (const char c : text) {
    if (c == '\\') {
      result += "\\\\";
    } else if (c == '\n') {
      result += "\\n";
    } else if (c == '"' && quotes) {
      result += "\\\"";
    } else {
      result += c;
    }
  }
  return result;
}

}  // namespace

void PrometheusText::family(std::string_view name, std::string_view help, std::string_view type) {
  name_ = fmt::format("modalkv_{}", name);
  text_ += fmt::format("# HELP {} {}\n# TYPE {} {}\n", name_, escaped(help, false), name_, type);
}

void PrometheusText::begin_sample(Labels labels) {
  text_ += name_;
  char before = '{';
  for (const auto& [label, value] : labels) {
    text_ += fmt::format("{}{}=\"{}\"", before, label, escaped(value, true));
    before = ',';
  }
  text_ += labels.size() > 0 ? "} " : " ";
}

void PrometheusText::sample(std::int64_t value, Labels labels) {
  begin_sample(labels);
  text_ += fmt::format("{}\n", value);
}

// Exact to the nanosecond, as no double is for long.
void PrometheusText::seconds(Nanos ns, Labels labels) {
  begin_sample(labels);
  text_ += fmt::format("{}{}.{:09}\n", ns < 0 ? "-" : "", std::abs(ns) / kSecond,
                       std::abs(ns) % kSecond);
}

}  // namespace modalkv
