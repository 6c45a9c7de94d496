#include "tools/commands/trace.hpp"

#include <fmt/format.h>

#include <cstdio>
#include <memory>
#include <string>

#include "modalkv/error.hpp"
#include "tools/commands/real_range.hpp"
#include "tools/commands/trace_eviction.hpp"
#include "tools/commands/trace_options.hpp"
#include "tools/report/output_folder.hpp"
#include "tools/trace/generator.hpp"
#include "tools/trace/trace_stats.hpp"
#include "tools/trace/trace_writer.hpp"

namespace modalkv {
namespace {

const Workload& workload_named(const std::string& name) {
  std::string names;
  for (const Workload& workload : workloads()) {
    if (workload.name == name) return workload;
    names += fmt::format("{}{}", names.empty() ? "" : ", ", workload.name);
  }
  throw Error(fmt::format("unknown workload '{}': expected one of {}", name, names));
}

void add_generate(CLI::App& trace) {
  struct Arguments {
    std::string workload = "chat", out;
    GeneratorOptions options;
  };
  auto arguments = std::make_shared<Arguments>();
  GeneratorOptions& options = arguments->options;
  CLI::App* command = trace.add_subcommand("generate", "Make a trace with published statistics");
  std::string footer = "Workloads:\n";
  for (const Workload& workload : workloads())
    footer += fmt::format("  {:<10} {} ({})\n", workload.name, workload.summary, workload.source);
  footer +=
      "Example: an hour in which 300 popular images come up again and again\n"
      "  modalkv trace generate --workload servegen --requests 7200 --rate 2 --image-pool 300 "
      "--out reuse.jsonl";
  command->footer(footer);
  command->add_option("--out", arguments->out, "file to write (JSON lines)")->required();
  command->add_option("--workload", arguments->workload, "statistics to draw from")
      ->capture_default_str();
  command->add_option("--requests", options.requests, "how many")
      ->check(CLI::Range(std::int64_t{1}, std::int64_t{100'000'000}))
      ->capture_default_str();
  command->add_option("--rate", options.rate_per_s, "requests a second on average")
      ->check(real_range(1e-6, 1e6))
      ->capture_default_str();
  command
      ->add_option(
          "--arrival-cv", options.arrival_cv,
          "coefficient of variation of gaps between arrivals: 0 even, 1 Poisson, above bursty")
      ->check(real_range(0.0, 20.0))
      ->capture_default_str();
  command
      ->add_option("--image-share", options.image_share,
                   "share of requests with images (default: the workload's)")
      ->check(real_range(0.0, 1.0));
  command
      ->add_option("--image-pool", options.image_pool,
                   "distinct images that requests show again and again; 0: every image is new")
      ->check(CLI::Range(std::int64_t{0}, std::int64_t{100'000'000}))
      ->capture_default_str();
  command
      ->add_option("--image-zipf", options.image_zipf,
                   "how popular the pool's popular images are: weight rank^-Z")
      ->check(real_range(0.0, 10.0))
      ->capture_default_str();
  command->add_option("--seed", options.seed, "same seed, same bytes")->capture_default_str();
  command->callback([arguments] {
    const Trace made = generate_trace(workload_named(arguments->workload), arguments->options);
    write_file(arguments->out, to_json_lines(made));
    fmt::print("{}: {} requests\n", arguments->out, made.requests.size());
  });
}

void add_stats(CLI::App& trace) {
  struct Arguments {
    std::string file;
    TraceArguments read;
    bool json = false;
  };
  auto arguments = std::make_shared<Arguments>();
  CLI::App* command = trace.add_subcommand("stats", "Describe a trace");
  command->add_option("file", arguments->file, "trace")->required();
  add_trace_options(*command, arguments->read);
  command->add_flag("--json", arguments->json, "print JSON");
  command->callback([arguments] {
    const Trace read = read_trace(arguments->file, arguments->read.resolved());
    const TraceStats stats = trace_stats(read);
    fmt::print("{}", arguments->json ? stats_json(read, stats) : stats_table(read, stats));
  });
}

void add_convert(CLI::App& trace) {
  struct Arguments {
    std::string from, to;
    TraceArguments read;
  };
  auto arguments = std::make_shared<Arguments>();
  CLI::App* command =
      trace.add_subcommand("convert", "Write any readable trace as modalkv's JSON lines");
  command->add_option("from", arguments->from, "trace to read")->required();
  command->add_option("to", arguments->to, "file to write")->required();
  add_trace_options(*command, arguments->read);
  command->callback([arguments] {
    const Trace read = read_trace(arguments->from, arguments->read.resolved());
    write_file(arguments->to, to_json_lines(read));
    fmt::print("{}: {} requests", arguments->to, read.requests.size());
    if (read.skipped_rows > 0) fmt::print(", {} bad rows left out", read.skipped_rows);
    fmt::print("\n");
  });
}

}  // namespace

void add_trace_command(CLI::App& app) {
  CLI::App* trace = app.add_subcommand("trace", "Make, describe and convert request traces");
  trace->require_subcommand(1);
  add_generate(*trace);
  add_stats(*trace);
  add_convert(*trace);
  add_trace_eviction(*trace);
}

}  // namespace modalkv
