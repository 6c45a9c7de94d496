// Mixes of KV formats, as typed on a command line.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "scheduler/format_name.hpp"

namespace modalkv {

/// A share of a sequence's tokens in one format.
struct FormatShare {
  std::string name;
  KvFormat format{};
  double share = 1;
};

/// Reads one format, or `FORMAT:SHARE,FORMAT:SHARE,...` whose shares add up to 1. Throws Error.
std::vector<FormatShare> parse_format_mix(std::string_view text);

}  // namespace modalkv
