#include "tools/bench/attention_case.hpp"

#include <fmt/format.h>

#include <chrono>
#include <cstddef>
#include <utility>

#include "kernels/attention.hpp"
#include "modalkv/error.hpp"
#include "offload/host_attention.hpp"
#include "tools/bench/attention_batch.hpp"
#include "tools/bench/rotation.hpp"

namespace modalkv {
namespace {

void add_fractions(BenchReport& report, const AttentionCase& options, const RoundTimes& times,
                   const Ceilings& ceilings, Bytes bytes, Tokens tokens) {
  const double flops = 4.0 * static_cast<double>(tokens) * options.q_heads * options.head_dim;
  report.add("gflops_per_run", flops / 1e9);
  report.add("gflops", flops / median_of(times.all_ms()) / 1e6);
  report.add("fraction_of_read_ceiling",
             times.fraction_of(ceilings.read_bytes(), static_cast<double>(bytes)));
  report.add("fraction_of_dot_product_peak", times.fraction_of(ceilings.operations_16bit(), flops));
}

void add_parts(BenchReport& report, const AttentionCase& options, const AttentionBatch& batch,
               std::span<const RoundTimes> times, const Ceilings& ceilings) {
  double sum_ms = 0;
  for (std::size_t p = 0; p < options.mix.size(); ++p) {
    const RoundTimes& alone = times[p + 1];
    const Bytes bytes = batch.parts()[p].bytes_read();
    BenchReport part;
    part.add("format", options.mix[p].name);
    part.add("format_detail", describe(options.mix[p].format));
    part.add("tokens", batch.part_tokens(p));
    add_times(part, alone, bytes);
    add_fractions(part, options, alone, ceilings, bytes, batch.part_tokens(p));
    report.add_part(std::move(part));
    sum_ms += median_of(alone.all_ms());
  }
  report.add("sum_of_parts_ms", sum_ms);
  report.add("time_over_sum_of_parts", times.front().ratio_to_sum(times.subspan(1)));
}

// What `text_of` says of each part, in one line.
template <typename TextOf>
std::string of_each(const std::vector<FormatShare>& mix, TextOf text_of) {
  std::string text;
  for (const FormatShare& part : mix) text += (text.empty() ? "" : ", ") + text_of(part);
  return text;
}

}  // namespace

BenchReport bench_attention(const AttentionCase& options, std::string_view command_line) {
  if (options.q_heads % options.kv_heads != 0)
    throw Error(fmt::format("--q-heads {}: not a multiple of --kv-heads {}", options.q_heads,
                            options.kv_heads));
  const HostCpu cpu = read_host_cpu();
  require_cpus(cpu, options.threads);
  AttentionBatch batch(options, cpu.last_level_cache_bytes);
  ThreadTeam team(std::span(cpu.cpus).first(static_cast<std::size_t>(options.threads)));
  Ceilings ceilings(team, batch.memory(), ceiling_pass_bytes(batch.bytes_read()));
  HostAttention attention(options.threads);

  const auto workload = [&](int part) -> Workload {
    return [&batch, &attention, part](std::int64_t turn) {
      const auto sequences = batch.sequences(static_cast<int>(turn % batch.copies()), part);
      const auto begin = std::chrono::steady_clock::now();
      attention.attend(sequences);
      return std::chrono::nanoseconds(std::chrono::steady_clock::now() - begin).count();
    };
  };
  std::vector<Workload> workloads{workload(-1)};
  if (options.mix.size() > 1)
    for (std::size_t p = 0; p < options.mix.size(); ++p)
      workloads.push_back(workload(static_cast<int>(p)));
  const auto times = run_interleaved(workloads, ceilings, options.runs);

  BenchReport report = begin_report(command_line, cpu, options.threads);
  report.add("operation", "attention");
  report.add("format", of_each(options.mix, [](const FormatShare& part) {
               return part.share == 1 ? part.name : fmt::format("{}:{:g}", part.name, part.share);
             }));
  report.add("format_detail",
             of_each(options.mix, [](const FormatShare& part) { return describe(part.format); }));
  report.add("kernel_target", std::string(attention_target()));
  report.add("input", std::string(name(options.input)));
  report.add("q_heads", options.q_heads);
  report.add("kv_heads", options.kv_heads);
  report.add("head_dim", options.head_dim);
  report.add("page_tokens", options.page_tokens);
  report.add("batch", options.batch);
  report.add("tokens", options.tokens);
  report.add("tokens_of_shortest_sequence", batch.lengths().front());
  report.add("tokens_of_longest_sequence", batch.lengths().back());
  report.add("query_scale", options.query_scale);
  report.add("seed", options.seed);
  report.add("distinct_pages", batch.distinct_pages());
  report.add("rotated_copies", batch.copies());
  add_times(report, times.front(), batch.bytes_read());
  add_ceilings(report, ceilings);
  add_fractions(report, options, times.front(), ceilings, batch.bytes_read(), batch.total_tokens());
  const int heads = batch.heads_to_check();
  attention.attend(batch.sequences(0, -1));
  report.add("measured_error", batch.error_of_first_sequence(heads));
  report.add("measured_error_heads", heads);
  if (options.mix.size() > 1) add_parts(report, options, batch, times, ceilings);
  return report;
}

}  // namespace modalkv
