// `modalkv bench`: the kernels' speed on this machine, beside what the machine can do at best.
#pragma once

#include <CLI/CLI.hpp>
#include <string>

namespace modalkv {

/// `command_line` is what the user typed, for the record.
void add_bench_command(CLI::App& app, std::string command_line);

}  // namespace modalkv
