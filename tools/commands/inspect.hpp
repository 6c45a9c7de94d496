// `modalkv inspect`: what modalkv knows: formats, models, machines, and the machine it runs on.
#pragma once

#include <CLI/CLI.hpp>

namespace modalkv {

void add_inspect_command(CLI::App& app);

}  // namespace modalkv
