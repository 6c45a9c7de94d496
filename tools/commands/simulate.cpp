#include "tools/commands/simulate.hpp"

#include <fmt/format.h>

#include <charconv>
#include <chrono>
#include <memory>
#include <thread>
#include <vector>

#include "modalkv/error.hpp"
#include "runtime/image_rule.hpp"
#include "scheduler/perturb.hpp"
#include "scheduler/policies.hpp"
#include "tools/commands/held_signals.hpp"
#include "tools/commands/real_range.hpp"
#include "tools/commands/replay_matrix.hpp"
#include "tools/commands/trace_options.hpp"
#include "tools/profile/profile.hpp"
#include "tools/report/output_folder.hpp"
#include "tools/report/report.hpp"

namespace modalkv {
namespace {

struct SimulateArguments {
  std::string command_line;
  std::string trace;
  TraceArguments read;
  std::string model = "llava-1.5-7b";
  std::string hardware = "rtx-4090";
  std::vector<std::string> policies{"fp16-resident", "fp16-stream", "fp16-offload", "uniform-int4",
                                    "text-centric"};
  std::vector<double> rate_scales{1};
  std::vector<std::string> slo;
  std::string image_tokens = "trace";
  std::string admission = "throughput";
  std::uint64_t seed = 1;
  double perturb = 0;
  ReplayLimits limits;
  std::vector<double> trace_window{0, 10};
  int threads = static_cast<int>(std::thread::hardware_concurrency());
  std::string out;
  bool json = false;
  bool quiet = false;
};

// "250ms", "2s" or "250" (milliseconds).
double milliseconds(std::string_view text) {
  double value = 0;
  const auto result = std::from_chars(text.data(), text.data() + text.size(), value);
  const std::string_view unit(result.ptr,
                              static_cast<std::size_t>(text.data() + text.size() - result.ptr));
  if (result.ec != std::errc() || !(value > 0 && value < 1e12) ||
      (unit != "" && unit != "ms" && unit != "s"))
    throw Error(fmt::format("--slo: found '{}', expected a time such as 250ms or 2s", text));
  return unit == "s" ? 1e3 * value : value;
}

Slo parse_slo(const std::vector<std::string>& terms) {
  Slo slo;
  for (const std::string& term : terms) {
    const std::size_t equals = term.find('=');
    const std::string key = term.substr(0, equals);
    std::optional<double>* field = key == "ttft"   ? &slo.ttft_ms
                                   : key == "tpot" ? &slo.tpot_ms
                                   : key == "e2el" ? &slo.e2el_ms
                                                   : nullptr;
    if (field == nullptr || equals == std::string::npos)
      throw Error(
          fmt::format("--slo: found '{}', expected ttft=TIME, tpot=TIME or e2el=TIME", term));
    if (*field) throw Error(fmt::format("--slo: '{}' stands twice", key));
    *field = milliseconds(std::string_view(term).substr(equals + 1));
  }
  return slo;
}

std::vector<PrecisionPolicy> policies_named(const std::vector<std::string>& names) {
  std::vector<PrecisionPolicy> policies;
  for (const std::string& name : names) {
    const auto policy = find_policy(name);
    if (!policy) {
      std::vector<std::string> known;
      for (const PrecisionPolicy& builtin : builtin_policies()) known.push_back(builtin.name);
      throw Error(
          fmt::format("--policy: unknown '{}', expected some of {}", name, fmt::join(known, ", ")));
    }
    for (const PrecisionPolicy& earlier : policies)
      if (earlier.name == name) throw Error(fmt::format("--policy: '{}' stands twice", name));
    policies.push_back(*policy);
  }
  return policies;
}

std::vector<ReplayConfig> configurations(const SimulateArguments& arguments,
                                         const ModelGeometry& model) {
  const HardwareProfile hardware = load_hardware(arguments.hardware);
  const double begin_s = arguments.trace_window[0], length_s = arguments.trace_window[1];
  ReplayConfig config{.model = model,
                      .hardware = hardware,
                      .policy = {},
                      .limits = arguments.limits,
                      .admission = arguments.admission == "memory" ? AdmissionRule::memory
                                                                   : AdmissionRule::throughput,
                      .window_begin_ns = static_cast<Nanos>(begin_s * 1e9),
                      .window_length_ns = static_cast<Nanos>(length_s * 1e9)};
  if (arguments.perturb > 0)
    config.actual_hardware = perturbed(hardware, arguments.perturb, arguments.seed);
  std::vector<ReplayConfig> configs;
  for (const double rate_scale : arguments.rate_scales)
    for (const PrecisionPolicy& policy : policies_named(arguments.policies)) {
      config.rate_scale = rate_scale;
      config.policy = policy;
      configs.push_back(config);
    }
  return configs;
}

void write_files(OutputFolder& folder, Report& report,
                 std::chrono::steady_clock::time_point start) {
  folder.write("requests.csv", requests_csv(report));
  folder.write("timeline.json", timeline_json(report));
  folder.write("report.html", report_html(report));
  report.wall_s = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  folder.write("summary.json", summary_json(report));
  folder.commit();
}

void run_simulate(const SimulateArguments& arguments) {
  const auto start = std::chrono::steady_clock::now();
  const ModelGeometry model = load_model(arguments.model);
  const auto configs = configurations(arguments, model);
  Report report{.command_line = arguments.command_line,
                .model = model.name,
                .hardware = configs.front().hardware.name,
                .context_tokens = model.context_tokens,
                .image_tokens = arguments.image_tokens,
                .admission = arguments.admission,
                .slo = parse_slo(arguments.slo),
                .seed = arguments.seed,
                .perturb = arguments.perturb};
  Trace trace = read_trace(arguments.trace, arguments.read.resolved());
  if (arguments.image_tokens == "model") trace = with_image_rule(trace, model);
  report.trace_name = trace.name;
  report.trace_format = trace.format;
  report.requests = static_cast<std::int64_t>(trace.requests.size());
  report.skipped_rows = trace.skipped_rows;

  const HeldSignals held;  // so that an interrupted run leaves nothing behind
  std::optional<OutputFolder> folder;
  if (!arguments.out.empty()) folder.emplace(arguments.out);
  for (TimedReplay& replay : replay_all(trace, configs, arguments.threads, arguments.quiet))
    report.runs.push_back(
        {.result = std::move(replay.result), .metrics = {}, .replay_wall_s = replay.wall_s});
  complete(report);
  report.wall_s = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  if (folder) write_files(*folder, report, start);
  if (arguments.json) {
    fmt::print("{}", summary_json(report));
  } else if (!arguments.quiet) {
    fmt::print("{}", comparison_table(report));
    if (folder)
      fmt::print("Report: {}/report.html (and summary.json, requests.csv, timeline.json)\n",
                 arguments.out);
  }
}

void add_options(CLI::App& command, SimulateArguments& arguments) {
  command.add_option("--trace", arguments.trace, "request trace")->required();
  add_trace_options(command, arguments.read);
  command.add_option("--model", arguments.model, "model name or JSON file")->capture_default_str();
  command.add_option("--hardware", arguments.hardware, "machine name or JSON file")
      ->capture_default_str();
  command.add_option("--policy", arguments.policies, "policies to compare, by comma")
      ->delimiter(',')
      ->capture_default_str();
  command
      .add_option("--rate-scale", arguments.rate_scales,
                  "arrivals this many times as fast as in the trace; several by comma")
      ->delimiter(',')
      ->check(real_range(1e-6, 1e6))
      ->capture_default_str();
  command.add_option("--slo", arguments.slo, "objectives by comma: ttft=2s,tpot=100ms,e2el=30s")
      ->delimiter(',');
  command
      .add_option(
          "--image-tokens", arguments.image_tokens,
          "trace: counts as in the trace; model: the images' sizes through the model's rule")
      ->check(CLI::IsMember({"trace", "model"}))
      ->capture_default_str();
  command
      .add_option(
          "--admission", arguments.admission,
          "throughput: a request joins if the batch does not get slower by it; memory: if it fits")
      ->check(CLI::IsMember({"throughput", "memory"}))
      ->capture_default_str();
  command.add_option("--seed", arguments.seed, "of what is drawn at random: --perturb")
      ->capture_default_str();
  command
      .add_option(
          "--perturb", arguments.perturb,
          "let the machine differ from its profile by up to this share, unknown to the planner")
      ->check(real_range(0.0, 0.9));
  command.add_option("--max-sequences", arguments.limits.max_sequences, "running at once")
      ->check(CLI::Range(1, 100'000))
      ->capture_default_str();
  command.add_option("--max-step-tokens", arguments.limits.max_step_tokens, "tokens of a step")
      ->check(CLI::Range(1, 1'000'000))
      ->capture_default_str();
  command
      .add_option("--memory-utilization", arguments.limits.memory_utilization,
                  "share of GPU memory to use")
      ->check(real_range(0.05, 1.0))
      ->capture_default_str();
  command
      .add_option("--trace-window", arguments.trace_window,
                  "START,LENGTH in simulated seconds: steps kept one by one in timeline.json")
      ->delimiter(',')
      ->expected(2)
      ->check(real_range(0.0, 1e9));
  command
      .add_option("--threads", arguments.threads, "replays at once; results do not depend on it")
      ->check(CLI::Range(1, 1024));
  command
      .add_option("--out", arguments.out,
                  "folder for summary.json, requests.csv, timeline.json, report.html")
      ->check([](const std::string& path) {
        return path.empty() ? std::string("found nothing, expected a folder") : std::string();
      });
  command.add_flag("--json", arguments.json, "print summary.json instead of the table");
  command.add_flag("--quiet", arguments.quiet, "print nothing but errors (and --json)");
}

}  // namespace

void add_simulate_command(CLI::App& app, std::string command_line) {
  auto arguments = std::make_shared<SimulateArguments>();
  arguments->command_line = std::move(command_line);
  CLI::App* command =
      app.add_subcommand("simulate", "Replay a request trace under several policies, side by side");
  std::string footer = "Policies:\n";
  for (const PrecisionPolicy& policy : builtin_policies())
    footer += fmt::format("  {:<18} {}\n", policy.name, policy.summary);
  footer +=
      "Example: what would quantizing image KV buy this traffic on a 24 GB card?\n"
      "  modalkv simulate --trace requests.jsonl --model llava-1.5-7b --hardware rtx-4090 \\\n"
      "      --policy fp16-resident,fp16-offload,text-centric --slo ttft=2s,tpot=100ms --out out";
  command->footer(footer);
  add_options(*command, *arguments);
  command->callback([arguments] { run_simulate(*arguments); });
}

}  // namespace modalkv
