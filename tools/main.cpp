// modalkv: the one binary.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <exception>
#include <string>

#include "modalkv/version.hpp"
#include "tools/commands/bench.hpp"
#include "tools/commands/inspect.hpp"
#include "tools/commands/plan.hpp"
#include "tools/commands/simulate.hpp"
#include "tools/commands/trace.hpp"

namespace {

constexpr int kFailed = 1;
constexpr int kUsage = 2;

std::string joined(int argc, char** argv) {
  std::string line = "modalkv";
  for (int i = 1; i < argc; ++i) line += fmt::format(" {}", argv[i]);
  return line;
}

std::string one_line(std::string text) {
  for (char& c : text)
    if (c == '\n') c = ' ';
  while (text.ends_with(' ')) text.pop_back();
  return text;
}

}  // namespace

int main(int argc, char** argv) {
  using modalkv::kHeaderVersion;
  CLI::App app{"modalkv: the KV cache of a multimodal LLM across a GPU and its host"};
  app.set_version_flag("--version",
                       fmt::format("modalkv {}.{}.{}", kHeaderVersion.major_number,
                                   kHeaderVersion.minor_number, kHeaderVersion.patch_number));
  app.require_subcommand(1);
  modalkv::add_simulate_command(app, joined(argc, argv));
  modalkv::add_plan_command(app);
  modalkv::add_trace_command(app);
  modalkv::add_inspect_command(app);
  modalkv::add_bench_command(app, joined(argc, argv));
  try {
    app.parse(argc, argv);
    // Output that did not arrive (a full disk behind a pipe) is a failure too.
    if (std::fflush(stdout) != 0) throw std::runtime_error("standard output cannot be written");
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() == 0) return app.exit(error);  // --help, --version
    fmt::print(stderr, "modalkv: error: {} (see --help)\n", one_line(error.what()));
    return kUsage;
  } catch (const std::exception& error) {
    fmt::print(stderr, "modalkv: error: {}\n", one_line(error.what()));
    return kFailed;
  }
  return 0;
}
