#include "tools/bench/format_mix.hpp"

#include <fmt/format.h>

#include <cmath>
#include <cstddef>
#include <optional>

#include "modalkv/error.hpp"
#include "scheduler/text_parts.hpp"

namespace modalkv {

std::vector<FormatShare> parse_format_mix(std::string_view text) {
  if (text.find_first_of(":,") == std::string_view::npos)
    return {{std::string(text), parse_kv_format(text), 1}};
  std::vector<FormatShare> mix;
  double sum = 0;
  for (const std::string_view part : split(text, ',')) {
    const std::size_t colon = part.find(':');
    if (colon == std::string_view::npos)
      throw Error(fmt::format("mix '{}': '{}' has no share, expected FORMAT:SHARE", text, part));
    const std::string_view format = part.substr(0, colon);
    const auto share = number_in<double>(part.substr(colon + 1));
    if (!share || !(*share > 0 && *share <= 1))
      throw Error(fmt::format("mix '{}': the share '{}' is no number above 0 and up to 1", text,
                              part.substr(colon + 1)));
    mix.push_back({std::string(format), parse_kv_format(format), *share});
    sum += *share;
  }
  if (std::abs(sum - 1) > 1e-6)
    throw Error(fmt::format("mix '{}': the shares add up to {:g}, expected 1", text, sum));
  return mix;
}

}  // namespace modalkv
