// The policies that the tool knows by name.
#pragma once

#include <optional>
#include <string_view>
#include <vector>

#include "modalkv/policy.hpp"

namespace modalkv {

/// In the order in which a reader wants to compare them: 16-bit baselines first.
std::vector<PrecisionPolicy> builtin_policies();

std::optional<PrecisionPolicy> find_policy(std::string_view name);

}  // namespace modalkv
