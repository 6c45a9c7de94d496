#include "tools/commands/bench.hpp"

#include <fmt/format.h>

#include <memory>
#include <utility>

#include "modalkv/error.hpp"
#include "tools/bench/attention_case.hpp"
#include "tools/bench/encode_case.hpp"
#include "tools/bench/merge_case.hpp"
#include "tools/bench/step_case.hpp"
#include "tools/commands/real_range.hpp"

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
  CLI::App* command = bench.add_subcommand("step", "Decode steps of the linked runtime");
  command
      ->add_option("--pages", options.thread_cost.pages,
                   "pages of 64 image tokens of a sequence, on a device that does nothing")
      ->check(CLI::Range(1, 4096))
      ->capture_default_str();
  command->add_flag("--quick", options.quick, "a few seconds, for a first look");
  command->add_flag("--json", arguments->output.json, "print JSON");
  command->callback([arguments, command_line] {
    arguments->output.print(bench_step(arguments->options, command_line));
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
}

}  // namespace modalkv
