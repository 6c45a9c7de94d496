// `modalkv simulate`: a request trace under several policies, side by side.
#pragma once

#include <CLI/CLI.hpp>
#include <string>

namespace modalkv {

/// `command_line` is what the user typed, for the record.
void add_simulate_command(CLI::App& app, std::string command_line);

}  // namespace modalkv
