// Small traces as literals, and the error that one raises.
#pragma once

#include <string>
#include <string_view>

#include "modalkv/error.hpp"
#include "tools/trace/trace_reader.hpp"

namespace modalkv {

inline Trace parsed(std::string_view text, const TraceOptions& options = {}) {
  return parse_trace(text, options, "t.log");
}

/// "no error" where there is none.
inline std::string error_of(std::string_view text, const TraceOptions& options = {}) {
  try {
    parsed(text, options);
    return "no error";
  } catch (const Error& error) {
    return error.what();
  }
}

}  // namespace modalkv
