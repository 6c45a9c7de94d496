// `modalkv trace`: make, describe and convert request traces.
#pragma once

#include <CLI/CLI.hpp>

namespace modalkv {

void add_trace_command(CLI::App& app);

}  // namespace modalkv
