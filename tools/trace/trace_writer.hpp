// Traces as modalkv's own JSON lines: what is written reads back equal.
#pragma once

#include <string>

#include "scheduler/request.hpp"

namespace modalkv {

/// The whole file. Throws Error where a request cannot be said in this format (text before an
/// image).
std::string to_json_lines(const Trace& trace);

}  // namespace modalkv
