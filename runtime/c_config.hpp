// A runtime's configuration as C gives it.
#pragma once

#include "modalkv/modalkv.h"
#include "modalkv/runtime.hpp"

namespace modalkv {

/// Zero, or null, is the default. Throws Error, one line, where there is no such thing.
RuntimeConfig runtime_config(const mkv_config& config);

}  // namespace modalkv
