// `modalkv plan`: one batch, one decode step: what each layer keeps, streams or leaves to the CPU,
// and why.
#pragma once

#include <CLI/CLI.hpp>

namespace modalkv {

void add_plan_command(CLI::App& app);

}  // namespace modalkv
