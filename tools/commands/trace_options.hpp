// The options with which every command reads a trace.
#pragma once

#include <CLI/CLI.hpp>
#include <string>

#include "tools/trace/trace_reader.hpp"

namespace modalkv {

struct TraceArguments {
  std::string format = "auto";
  TraceOptions options{};

  /// The options with the format resolved. Throws Error for an unknown one.
  TraceOptions resolved() const {
    TraceOptions result = options;
    if (format != "auto") result.format = trace_format(format);
    return result;
  }
};

void add_trace_options(CLI::App& command, TraceArguments& arguments);

}  // namespace modalkv
