// Whose KV a directory of pages holds: all that decides their bytes beside their content.
#pragma once

#include "modalkv/runtime.hpp"

namespace modalkv {

/// Configurations with equal owners can use each other's pages. Throws Error where the system's
/// cryptography fails.
ContentId kv_owner(const RuntimeConfig& config);

}  // namespace modalkv
