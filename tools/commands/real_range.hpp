// Checks options that are real numbers.
#pragma once

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <string>

namespace modalkv {

/// A number in [low, high]. Unlike CLI::Range it refuses NaN, which no comparison does.
inline CLI::Validator real_range(double low, double high) {
  const std::string name = fmt::format("FLOAT in [{:g} - {:g}]", low, high);
  return {[=](std::string& text) {
            double value = 0;
            if (CLI::detail::lexical_cast(text, value) && value >= low && value <= high)
              return std::string();
            return fmt::format("Value {} not in range {:g} to {:g}", text, low, high);
          },
          name};
}

}  // namespace modalkv
