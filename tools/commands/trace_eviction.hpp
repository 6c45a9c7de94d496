// `modalkv trace eviction`: what each eviction policy would have to reload on a trace.
#pragma once

#include <CLI/CLI.hpp>

namespace modalkv {

void add_trace_eviction(CLI::App& trace);

}  // namespace modalkv
