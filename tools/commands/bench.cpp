#include "tools/commands/bench.hpp"

#include <fmt/format.h>

#include <memory>
#include <string>
#include <utility>

#include "modalkv/error.hpp"
#include "tools/bench/attention_case.hpp"
#include "tools/bench/e2e/e2e_case.hpp"
#include "tools/bench/encode_case.hpp"
#include "tools/bench/merge_case.hpp"
#include "tools/bench/step_case.hpp"
#include "tools/commands/real_range.hpp"
#include "tools/profile/profile.hpp"

namespace modalkv {
namespace {

constexpr const char* kFormats =
    "Formats:\n"
    "  fp16 bf16 fp8 nvfp4 mxfp4   as they are\n"
    "  int8 int4 int2              with FP16 scale and zero per 64 elements, unless they say\n"
    "    -gN -head -channel        per N elements; per token and head; per channel over the page\n"
    "    -symmetric -fp8meta       without zero; scale and zero in FP8\n"
    "  K-V                         K and V apart: int8-int4-g32\n";

constexpr const char* kReading =
    "Reading the result: the ceilings are measured between the timed runs, by as many threads "
    "over\n"
    "the same memory. fraction_of_read_ceiling near 1: memory is the limit and only fewer bytes\n"
    "help. Small, with fraction_of_dot_product_peak above a half: arithmetic is the limit. Both\n"
    "small: the kernel can be better, or a run is too short for its threads. p10 and p90 far "
    "apart:\n"
    "something else runs here; measure again.\n";

constexpr const char* kStepReading =
    "\nWhat is measured:\n"
    "  1. A step of 32 layers of 8 heads on a device whose operations end at once. CPU us a layer "
    "is\n"
    "     processor time of the engine's thread; append, attend and poll are elapsed time.\n"
    "  2. Real bytes and kernels. A layer begins when the one before it has ended; no time is "
    "spent\n"
    "     outside attention. Then the same step is taken apart: its copies again and again "
    "through\n"
    "     the same paced queue, its attention again and again over other memory of the same size,\n"
    "     at the same time, neither waiting for the other. A step's copies and its computing are\n"
    "     timed in the middle of that, so that each has the other's load on CPUs and memory.\n"
    "     step / longer 1: the shorter one is hidden. Three shares are streamed: all, what is not\n"
    "     resident below, and as much as takes as long to copy as the step computes, where "
    "nothing\n"
    "     is left to hide behind.\n"
    "  3. Some KV is resident, some streamed and some attended to on the CPU, by shares of that.\n"
    "     step / streaming below 1: faster than streaming all of it. Outputs differ by rounding.\n"
    "Ratios are medians over rounds of what stood side by side in one round; trust them before\n"
    "milliseconds. p10 and p90 far apart: something else runs here; measure again.\n\n"
    "Example: does a slower link still hide behind computing?\n"
    "  modalkv bench step --link-share 0.05 --format int4";

constexpr const char* kE2eReading =
    "What is run: decoder layers with random weights, RMS norm, projections, a gated FFN and the "
    "LM\n"
    "head, and attention through the runtime as the policy's plan says. Every policy has the same\n"
    "device budget for pages and staging; partial results and rows lie beside it and are the same\n"
    "for all. The machine is measured first, and plans are made for what was found.\n"
    "A policy's name with -inflated: its compressed pages become 16-bit pages again before "
    "attention,\n"
    "in memory beside the budget, as engines do that cannot attend to them as they are.\n"
    "Without a GPU its place is taken by memory and threads of this machine, behind a link of\n"
    "--link-gigabytes-per-second: that shows what the runtime does, and no GPU's speed. Layers of\n"
    "such models take this machine minutes.\n\n"
    "Example: a batch whose KV is five times the budget\n"
    "  modalkv bench e2e --on gpu --model llava-next-7b --batch 8 --device-kv-share 0.2";

NumberFormat input_named(const std::string& name) {
  if (name == "fp16") return NumberFormat::fp16;
  if (name == "bf16") return NumberFormat::bf16;
  throw Error(fmt::format("--input '{}': expected fp16 or bf16", name));
}

struct Output {
  bool json = false;

  template <typename Report>
  void print(const Report& report) const {
    fmt::print("{}", json ? report.json().dump(2) + "\n" : report.table());
  }
};

// Options of every case.
template <typename Case>
void add_common(CLI::App& command, Case& options, Output& output) {
  command.add_option("--head-dim", options.head_dim, "elements of a vector")
      ->check(CLI::Range(16, kMaxHeadDim))
      ->capture_default_str();
  command.add_option("--threads", options.threads, "threads, of the ceilings too")
      ->check(CLI::Range(1, 1024))
      ->capture_default_str();
  command
      .add_option("--runs", options.runs,
                  "timed runs (default: at least 25, in two seconds or more)")
      ->check(CLI::Range(1, 1'000'000));
  command.add_option("--seed", options.seed, "of the random data")->capture_default_str();
  command.add_flag("--json", output.json, "print JSON");
}

template <typename Case>
void add_page_options(CLI::App& command, Case& options, std::string& input) {
  command.add_option("--kv-heads", options.kv_heads, "KV heads")
      ->check(CLI::Range(1, 1024))
      ->capture_default_str();
  command.add_option("--page-tokens", options.page_tokens, "tokens of a page")
      ->check(CLI::Range(16, 4096))
      ->capture_default_str();
  command.add_option("--input", input, "16-bit numbers of the engine: fp16 or bf16")
      ->capture_default_str();
}

void add_attention(CLI::App& bench, const std::string& command_line) {
  struct Arguments {
    std::string format = "int4", input = "fp16";
    AttentionCase options;
    Output output;
  };
  auto arguments = std::make_shared<Arguments>();
  AttentionCase& options = arguments->options;
  CLI::App* command =
      bench.add_subcommand("attention", "Decode attention over pages in host memory");
  command->footer(
      std::string(kFormats) +
      "  FORMAT:SHARE,FORMAT:SHARE   several page lists in one call: fp16:0.1,int4:0.9\n\n" +
      kReading +
      "\nExample: is one layer of a 16 K context of LLaVA-1.5-7B attended to at the speed of "
      "memory?\n"
      "  modalkv bench attention --format int4 --q-heads 32 --kv-heads 32 --tokens 16384 "
      "--threads 2");
  command->add_option("--format", arguments->format, "of the pages, or a mix; see below")
      ->capture_default_str();
  command->add_option("--q-heads", options.q_heads, "query heads")
      ->check(CLI::Range(1, 1024))
      ->capture_default_str();
  command->add_option("--tokens", options.tokens, "tokens of a sequence, on average")
      ->check(CLI::Range(1, 100'000'000))
      ->capture_default_str();
  command
      ->add_option("--batch", options.batch,
                   "sequences in one call, their lengths evenly spread from a half to one and a "
                   "half of --tokens")
      ->check(CLI::Range(1, 4096))
      ->capture_default_str();
  command
      ->add_option("--query-scale", options.query_scale,
                   "standard deviation of the queries' elements: above 1 attention is peaked")
      ->check(real_range(1e-3, 100))
      ->capture_default_str();
  add_page_options(*command, options, arguments->input);
  add_common(*command, options, arguments->output);
  command->callback([arguments, command_line] {
    arguments->options.mix = parse_format_mix(arguments->format);
    arguments->options.input = input_named(arguments->input);
    arguments->output.print(bench_attention(arguments->options, command_line));
  });
}

void add_encode(CLI::App& bench, const std::string& command_line) {
  struct Arguments {
    std::string format = "int4", input = "fp16";
    EncodeCase options;
    Output output;
  };
  auto arguments = std::make_shared<Arguments>();
  CLI::App* command =
      bench.add_subcommand("encode", "16-bit K and V into pages with their checksums");
  command->footer(std::string(kFormats) +
                  "\ngigabytes_per_second counts the 16-bit input.\n\nExample:\n"
                  "  modalkv bench encode --format int4-channel --kv-heads 4 --page-tokens 64");
  command->add_option("--format", arguments->format, "of the pages; see below")
      ->capture_default_str();
  add_page_options(*command, arguments->options, arguments->input);
  add_common(*command, arguments->options, arguments->output);
  command->callback([arguments, command_line] {
    arguments->options.format = {arguments->format, parse_kv_format(arguments->format)};
    arguments->options.input = input_named(arguments->input);
    arguments->output.print(bench_encode(arguments->options, command_line));
  });
}

void add_merge(CLI::App& bench, const std::string& command_line) {
  struct Arguments {
    MergeCase options;
    Output output;
  };
  auto arguments = std::make_shared<Arguments>();
  CLI::App* command =
      bench.add_subcommand("merge", "Partial attention results of the same rows into one");
  command->footer(
      "gigabytes_per_second counts the partials read and the result written.\n\nExample: a batch "
      "of "
      "64 sequences with 32 heads, attended to in two places\n"
      "  modalkv bench merge --parts 2 --rows 2048");
  command->add_option("--parts", arguments->options.parts, "partials of a row")
      ->check(CLI::Range(1, 4096))
      ->capture_default_str();
  command->add_option("--rows", arguments->options.rows, "rows: sequences by query heads")
      ->check(CLI::Range(1, 10'000'000))
      ->capture_default_str();
  add_common(*command, arguments->options, arguments->output);
  command->callback([arguments, command_line] {
    arguments->output.print(bench_merge(arguments->options, command_line));
  });
}

void add_step(CLI::App& bench, const std::string& command_line) {
  struct Arguments {
    StepCase options;
    Output output;
  };
  auto arguments = std::make_shared<Arguments>();
  StepCase& options = arguments->options;
  CLI::App* command = bench.add_subcommand(
      "step", "Decode steps of the linked runtime: its own time, overlap, a mix of places");
  command->footer(std::string(kFormats) + kStepReading);
  const auto add = [&](const char* name, auto& value, const auto& range, const char* what) {
    command->add_option(name, value, what)->check(range)->capture_default_str();
  };
  DecodeShape& shape = options.decode.shape;
  command->add_option("--format", options.decode.format, "of the image tokens' KV; see below")
      ->capture_default_str();
  add("--tokens", shape.tokens, CLI::Range(64, 1'000'000), "image tokens of each sequence");
  add("--batch", shape.batch, CLI::Range(1, 64), "sequences");
  add("--layers", shape.layers, CLI::Range(2, 48), "layers");
  add("--heads", shape.heads, CLI::Range(1, 128), "query and KV heads, of 128 elements");
  add("--threads", shape.host_threads, CLI::Range(1, 1024), "threads that attend on the CPU");
  add("--link-share", options.decode.link_share, real_range(0.01, 1),
      "bytes a second of the link, as a share of what all CPUs can read");
  add("--resident-share", options.decode.resident_share, real_range(0, 0.9),
      "of the KV of mixed steps, on the device");
  add("--staging-slots", shape.staging_slots, CLI::Range(2, 16), "of a layer each");
  add("--pages", options.thread_cost.pages, CLI::Range(1, 1024),
      "of a sequence on the device that does nothing: 64 image tokens each");
  add("--seed", shape.seed, CLI::NonNegativeNumber, "of the random data");
  command->add_flag("--quick", options.quick, "a few seconds, for a first look");
  command->add_flag("--json", arguments->output.json, "print JSON");
  command->callback([arguments, command_line] {
    arguments->output.print(bench_step(arguments->options, command_line));
  });
}

void add_e2e(CLI::App& bench, const std::string& command_line) {
  struct Arguments {
    std::string model = "llava-1.5-7b";
    int layers = 0;
    double device_share = 0.2;
    Bytes device_bytes = 0, host_bytes = 0;
    std::string place = "any";
    E2eCase options;
    Output output;
  };
  auto arguments = std::make_shared<Arguments>();
  E2eCase& options = arguments->options;
  options.policies = {"fp16-stream",  "fp16-offload", "uniform-int4-inflated",
                      "uniform-int4", "text-centric", "text-centric-int2"};
  CLI::App* command = bench.add_subcommand(
      "e2e", "Whole decoder layers through the runtime: TTFT and TPOT under several policies");
  command->footer(kE2eReading);
  const auto add = [&](const char* name, auto& value, const auto& range, const char* what) {
    command->add_option(name, value, what)->check(range)->capture_default_str();
  };
  command->add_option("--model", arguments->model, "a name, or a JSON file of your own")
      ->capture_default_str();
  add("--layers", arguments->layers, CLI::Range(0, 1024), "of the model, the first; 0: all");
  add("--batch", options.load.batch, CLI::Range(1, 1024), "sequences");
  add("--image-tokens", options.load.image_tokens, CLI::Range(1, 1'000'000), "of each sequence");
  add("--text-tokens", options.load.text_tokens, CLI::Range(1, 1'000'000),
      "of each sequence, behind its image");
  add("--chunk-tokens", options.load.chunk_tokens, CLI::Range(1, 65'536), "of a prompt in a step");
  add("--decode-steps", options.load.decode_steps, CLI::Range(2, 100'000),
      "each a token a sequence");
  command->add_option("--policy", options.policies, "one or more, with commas between")
      ->delimiter(',')
      ->capture_default_str();
  command
      ->add_option("--device-kv-budget", arguments->device_bytes,
                   "bytes of device memory for pages and staging, instead of --device-kv-share")
      ->check(CLI::PositiveNumber);
  add("--device-kv-share", arguments->device_share, real_range(0.01, 4),
      "the same as a share of all sequences' 16-bit KV");
  command
      ->add_option("--host-kv-bytes", arguments->host_bytes,
                   "host memory for KV (default: one and a half times all 16-bit KV)")
      ->check(CLI::PositiveNumber);
  command
      ->add_option("--on", arguments->place,
                   "a GPU where there is one (any), a GPU, or the host in its place")
      ->check(CLI::IsMember({"any", "gpu", "host"}))
      ->capture_default_str();
  add("--rounds", options.rounds, CLI::Range(1, 1000), "each serves all policies in turn");
  add("--threads", options.host_threads, CLI::Range(1, 1024), "threads that attend on the CPU");
  add("--link-gigabytes-per-second", options.link_gigabytes_per_second, real_range(0, 1000),
      "of the stand-in for a GPU; 0: as fast as memory");
  add("--seed", options.seed, CLI::NonNegativeNumber, "of the weights");
  command->add_flag("--json", arguments->output.json, "print JSON");
  command->callback([arguments, command_line] {
    E2eLoad& load = arguments->options.load;
    load.model = load_model(arguments->model);
    if (arguments->place == "gpu") arguments->options.place = E2ePlace::gpu;
    if (arguments->place == "host") arguments->options.place = E2ePlace::host;
    if (arguments->layers > load.model.layers)
      throw Error(fmt::format("--layers {}: {} has {}", arguments->layers, load.model.name,
                              load.model.layers));
    if (arguments->layers > 0) load.model.layers = arguments->layers;
    const auto share_of_kv = [&](double share) {
      return round_up(static_cast<Bytes>(share * static_cast<double>(load.kv_bytes())), 64 * kKiB);
    };
    load.device_budget_bytes = arguments->device_bytes > 0 ? arguments->device_bytes
                                                           : share_of_kv(arguments->device_share);
    load.host_bytes = arguments->host_bytes > 0 ? arguments->host_bytes : share_of_kv(1.5);
    arguments->output.print(bench_e2e(arguments->options, command_line, [](std::string_view what) {
      fmt::print(stderr, "bench e2e: {}\n", what);
    }));
  });
}

}  // namespace

void add_bench_command(CLI::App& app, std::string command_line) {
  CLI::App* bench = app.add_subcommand(
      "bench",
      "Measure the kernels and the linked runtime on this machine, beside what it can do at best");
  bench->require_subcommand(1);
  add_attention(*bench, command_line);
  add_encode(*bench, command_line);
  add_merge(*bench, command_line);
  add_step(*bench, command_line);
  add_e2e(*bench, command_line);
}

}  // namespace modalkv
