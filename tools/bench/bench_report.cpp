#include "tools/bench/bench_report.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "tools/report/text_table.hpp"

namespace modalkv {
namespace {

constexpr int kSchemaVersion = 1;

std::string text_of(const nlohmann::ordered_json& value) {
  if (value.is_string()) return value.get<std::string>();
  if (!value.is_number_float()) return value.dump();
  const auto number = value.get<double>();
  return std::abs(number) >= 0.1 ? fmt::format("{:.3f}", number) : fmt::format("{:.3g}", number);
}

}  // namespace

void BenchReport::add(std::string_view key, nlohmann::ordered_json value) {
  figures_[std::string(key)] = std::move(value);
}

void BenchReport::add_part(BenchReport part) {
  parts_.push_back(std::move(part));
}

nlohmann::ordered_json BenchReport::json() const {
  nlohmann::ordered_json all = figures_;
  for (const BenchReport& part : parts_) all["parts"].push_back(part.json());
  return all;
}

std::string BenchReport::table() const {
  TextTable rows({{"figure", TextTable::Align::left}, {"value", TextTable::Align::left}});
  for (const auto& [key, value] : figures_.items()) {
    std::string label = key;
    std::replace(label.begin(), label.end(), '_', ' ');
    rows.add_row({label, text_of(value)});
  }
  std::string text = rows.str(120);
  for (const BenchReport& part : parts_) text += "\npart\n" + part.table();
  return text;
}

BenchReport begin_report(std::string_view command_line, const HostCpu& cpu, int threads) {
  BenchReport report;
  report.add("schema_version", kSchemaVersion);
  report.add("command_line", std::string(command_line));
  report.add("host_cpu", cpu.name);
  report.add("last_level_cache_bytes", cpu.last_level_cache_bytes);
  report.add("threads", threads);
  return report;
}

void add_times(BenchReport& report, const RoundTimes& times, Bytes bytes_per_run) {
  const std::vector<double> all = times.all_ms();
  const TimeSpread spread = time_spread(all);
  report.add("bytes_per_run", bytes_per_run);
  report.add("runs", all.size());
  report.add("rounds", times.rounds_ms.size());
  report.add("median_ms", spread.median);
  report.add("p10_ms", spread.p10);
  report.add("p90_ms", spread.p90);
  report.add("min_ms", spread.min);
  report.add("gigabytes_per_second", static_cast<double>(bytes_per_run) / spread.median / 1e6);
}

void add_ceilings(BenchReport& report, const Ceilings& ceilings) {
  const Ceiling read = ceilings.read_bytes(), copy = ceilings.copied_bytes();
  report.add("read_ceiling_gigabytes_per_second", median_of(read.readings) / 1e9);
  report.add("read_ceiling_p10_gigabytes_per_second", quantile_of(read.readings, 0.1) / 1e9);
  report.add("read_ceiling_p90_gigabytes_per_second", quantile_of(read.readings, 0.9) / 1e9);
  report.add("read_ceiling_loop", read.loop);
  report.add("copy_ceiling_gigabytes_per_second", median_of(copy.readings) / 1e9);
  report.add("copy_ceiling_loop", copy.loop);
  const Ceiling wide = ceilings.operations_16bit(), narrow = ceilings.operations_8bit();
  report.add("dot_product_peak_gflops", median_of(wide.readings) / 1e9);
  report.add("dot_product_peak_instruction", wide.loop);
  report.add("dot_product_peak_8bit_gops", median_of(narrow.readings) / 1e9);
  report.add("dot_product_peak_8bit_instruction", narrow.loop);
}

}  // namespace modalkv
