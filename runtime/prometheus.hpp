// Prometheus' text exposition format 0.0.4: families of samples, each with its help and type.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <string>
#include <string_view>
#include <utility>

#include "modalkv/units.hpp"

namespace modalkv {

class PrometheusText {
 public:
  using Labels = std::initializer_list<std::pair<std::string_view, std::string_view>>;

  /// Begins a family: the samples that follow are of it. Counters end in `_total`.
  void counter(std::string_view name, std::string_view help) { family(name, help, "counter"); }
  void gauge(std::string_view name, std::string_view help) { family(name, help, "gauge"); }

  void sample(std::int64_t value, Labels labels = {});
  void seconds(Nanos ns, Labels labels = {});

  const std::string& str() const { return text_; }

 private:
  void family(std::string_view name, std::string_view help, std::string_view type);
  void begin_sample(Labels labels);

  std::string text_, name_;
};

}  // namespace modalkv
