#include "tools/bench/merge_case.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstring>
#include <random>
#include <vector>

#include "kernels/attention.hpp"
#include "tools/bench/exact_attention.hpp"
#include "tools/bench/huge_buffer.hpp"
#include "tools/bench/rotation.hpp"

namespace modalkv {
namespace {

// Partials of a share of the rows for each thread, part after part; `copies` times.
class MergeBatch {
 public:
  MergeBatch(const MergeCase& options, Bytes last_level_cache_bytes)
      : options_(options),
        thread_rows_(divide_up(options.rows, options.threads)),
        copies_(rotation_copies(bytes_read(), last_level_cache_bytes)),
        partials_(checked(copies_ * (bytes_read() + bytes_written()), copies_ * bytes_read())),
        merged_(copies_ * bytes_written()) {
    std::mt19937_64 random(options.seed);
    std::normal_distribution<float> normal;
    std::vector<float> one(static_cast<std::size_t>(part_floats() * options.parts));
    for (std::int64_t row = 0; row < thread_rows_ * options.parts; ++row) {
      const PartialRow partial = partial_row(one, row, options.head_dim);
      for (float& element : partial.output) element = normal(random);
      *partial.maximum = normal(random);
      *partial.sum = 1 + std::abs(normal(random));
    }
    for (std::int64_t share = 0; share < copies_ * options.threads; ++share)
      std::memcpy(partials(share).data(), one.data(), one.size() * sizeof(float));
  }

  void merge(std::int64_t copy, int thread) {
    const std::int64_t share = copy * options_.threads + thread;
    merge_partials(partials(share), options_.parts, thread_rows_, options_.head_dim, merged(share));
  }

  /// Of the outputs and sums of the first share of rows against double precision.
  double error() {
    const std::int64_t stride = options_.head_dim + 2;
    std::vector<float> found;
    std::vector<double> expected;
    for (std::int64_t row = 0; row < thread_rows_; ++row) {
      const auto part = [&](std::int64_t p) {
        return partials(0).data() + (p * thread_rows_ + row) * stride;
      };
      const float* result = merged(0).data() + row * stride;
      const auto maximum = static_cast<double>(result[options_.head_dim]);
      for (std::int64_t at = 0; at < stride; ++at) {
        if (at == options_.head_dim) continue;
        double sum = 0;
        for (std::int64_t p = 0; p < options_.parts; ++p)
          sum += std::exp(static_cast<double>(part(p)[options_.head_dim]) - maximum) *
                 static_cast<double>(part(p)[at]);
        expected.push_back(sum);
        found.push_back(result[at]);
      }
    }
    return relative_l2_error(found, expected);
  }

  std::int64_t copies() const { return copies_; }
  std::int64_t rows() const { return thread_rows_ * options_.threads; }
  Bytes bytes_read() const { return options_.parts * bytes_written(); }
  Bytes bytes_written() const { return options_.threads * part_floats() * Bytes{sizeof(float)}; }
  std::span<const std::byte> memory() const { return partials_.bytes(); }

 private:
  static Bytes checked(Bytes all, Bytes partials) {
    require_memory(all + kMostPassBytes, "partials in rotated copies");
    return partials;
  }
  std::int64_t part_floats() const { return thread_rows_ * (options_.head_dim + 2); }
  std::span<float> partials(std::int64_t share) {
    return floats(partials_, share, part_floats() * options_.parts);
  }
  std::span<float> merged(std::int64_t share) { return floats(merged_, share, part_floats()); }
  static std::span<float> floats(HugeBuffer& buffer, std::int64_t share, std::int64_t count) {
    return {reinterpret_cast<float*>(buffer.bytes().data()) + share * count,
            static_cast<std::size_t>(count)};
  }

  MergeCase options_;
  std::int64_t thread_rows_, copies_;
  HugeBuffer partials_, merged_;
};

}  // namespace

BenchReport bench_merge(const MergeCase& options, std::string_view command_line) {
  const HostCpu cpu = read_host_cpu();
  require_cpus(cpu, options.threads);
  MergeBatch batch(options, cpu.last_level_cache_bytes);
  ThreadTeam team(std::span(cpu.cpus).first(static_cast<std::size_t>(options.threads)));
  const Bytes bytes = batch.bytes_read() + batch.bytes_written();
  Ceilings ceilings(team, batch.memory(), ceiling_pass_bytes(bytes));
  const Workload workload = [&](std::int64_t turn) {
    return team.run([&](int thread) { batch.merge(turn % batch.copies(), thread); });
  };
  const auto times = run_interleaved({&workload, 1}, ceilings, options.runs);

  BenchReport report = begin_report(command_line, cpu, options.threads);
  report.add("operation", "merge");
  report.add("parts_of_a_row", options.parts);
  report.add("rows", batch.rows());
  report.add("head_dim", options.head_dim);
  report.add("seed", options.seed);
  report.add("rotated_copies", batch.copies());
  report.add("bytes_read_per_run", batch.bytes_read());
  add_times(report, times.front(), bytes);
  add_ceilings(report, ceilings);
  report.add("fraction_of_read_ceiling",
             times.front().fraction_of(ceilings.read_bytes(), static_cast<double>(bytes)));
  for (int thread = 0; thread < options.threads; ++thread) batch.merge(0, thread);
  report.add("measured_error", batch.error());
  return report;
}

}  // namespace modalkv
