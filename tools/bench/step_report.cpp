#include "tools/bench/step_report.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <string_view>

#include "tools/report/text_table.hpp"

namespace modalkv {
namespace {

using Json = nlohmann::ordered_json;

constexpr double kOverlapGoal = 1.1;  // of a step over the longer of copies and computing

void add_spread(Json& json, std::string_view name, std::string_view unit,
                const TimeSpread& spread) {
  const auto add = [&](std::string_view statistic, double value) {
    json[fmt::format("{}{}{}", name, statistic, unit)] = value;
  };
  add("_median", spread.median);
  add("_p10", spread.p10);
  add("_p90", spread.p90);
}

Json json_of(const ThreadCost& cost, Tokens pages) {
  Json json{{"batch", cost.batch},
            {"kv", cost.streamed ? "streamed" : "resident"},
            {"pages_a_sequence", pages},
            {"layers", ThreadCost::kLayers},
            {"kv_heads", ThreadCost::kKvHeads}};
  add_spread(json, "cpu", "_us", cost.cpu);
  json["append_us"] = cost.append_us;
  json["attend_us"] = cost.attend_us;
  json["poll_us"] = cost.poll_us;
  json["goal_us"] = cost.goal_us;
  return json;
}

Json json_of(const DecodeTimes& times) {
  Json json{{"resident_share", times.shares.resident},
            {"streamed_share", times.shares.streamed},
            {"cpu_share", times.shares.cpu},
            {"streamed_bytes_a_step", times.streamed_bytes}};
  add_spread(json, "step", "_ms", times.step_ms);
  add_spread(json, "step_over_streaming", "", times.over_streaming);
  json["output_difference"] = times.difference;
  return json;
}

Json json_of(const OverlapTimes& times) {
  Json json = json_of(times.step);
  add_spread(json, "copy", "_ms", times.copy_ms);
  add_spread(json, "compute", "_ms", times.compute_ms);
  add_spread(json, "step_over_longer", "", times.over_longer);
  json["goal"] = kOverlapGoal;
  return json;
}

std::string with_spread(const TimeSpread& spread, int digits) {
  return fmt::format("{:.{}f} ({:.{}f}-{:.{}f})", spread.median, digits, spread.p10, digits,
                     spread.p90, digits);
}

std::string percent(double share) {
  return fmt::format("{:.0f} %", 100 * share);
}

std::string verdict(bool met) {
  return met ? "met" : "missed";
}

std::string table_of(const std::vector<ThreadCost>& costs) {
  TextTable table({{"batch"},
                   {"KV", TextTable::Align::left},
                   {"CPU us a layer"},
                   {"append"},
                   {"attend"},
                   {"poll"},
                   {"goal"},
                   {"", TextTable::Align::left}});
  for (const ThreadCost& cost : costs)
    table.add_row({fmt::format("{}", cost.batch), cost.streamed ? "streamed" : "resident",
                   with_spread(cost.cpu, 1), fmt::format("{:.1f}", cost.append_us),
                   fmt::format("{:.1f}", cost.attend_us), fmt::format("{:.1f}", cost.poll_us),
                   fmt::format("{:.0f}", cost.goal_us), verdict(cost.cpu.median <= cost.goal_us)});
  return table.str();
}

std::string table_of(const std::vector<OverlapTimes>& overlaps) {
  TextTable table({{"streamed"},
                   {"MB a step"},
                   {"step ms"},
                   {"copies ms"},
                   {"computing ms"},
                   {"step / longer"},
                   {"goal"},
                   {"", TextTable::Align::left}});
  for (const OverlapTimes& times : overlaps)
    table.add_row({percent(times.step.shares.streamed),
                   fmt::format("{:.1f}", static_cast<double>(times.step.streamed_bytes) / 1e6),
                   with_spread(times.step.step_ms, 1), with_spread(times.copy_ms, 1),
                   with_spread(times.compute_ms, 1), with_spread(times.over_longer, 3),
                   fmt::format("{:.2f}", kOverlapGoal),
                   verdict(times.over_longer.median <= kOverlapGoal)});
  return table.str();
}

std::string table_of(const std::vector<DecodeTimes>& mixes) {
  TextTable table({{"resident"},
                   {"streamed"},
                   {"on the CPU"},
                   {"step ms"},
                   {"step / streaming"},
                   {"output differs by"},
                   {"", TextTable::Align::left}});
  const auto fastest =
      std::min_element(mixes.begin(), mixes.end(), [](const auto& a, const auto& b) {
        return a.over_streaming.median < b.over_streaming.median;
      });
  for (auto times = mixes.begin(); times != mixes.end(); ++times)
    table.add_row({percent(times->shares.resident), percent(times->shares.streamed),
                   percent(times->shares.cpu), with_spread(times->step_ms, 1),
                   with_spread(times->over_streaming, 3), fmt::format("{:.1e}", times->difference),
                   times == fastest ? "fastest" : ""});
  return table.str();
}

}  // namespace

Json StepReport::json() const {
  Json all = head.json();
  all["cpus"] = cpus;
  all["format"] = decode.format;
  all["tokens"] = decode.shape.tokens;
  all["batch"] = decode.shape.batch;
  all["layers"] = decode.shape.layers;
  all["heads"] = decode.shape.heads;
  all["head_dim"] = decode.shape.head_dim;
  all["staging_slots"] = decode.shape.staging_slots;
  all["rounds"] = decode.rounds;
  all["steps_a_round"] = decode.steps_a_round;
  TimeSpread read = decoded.read_bytes_per_s;
  for (double* bytes_per_s : {&read.median, &read.p10, &read.p90}) *bytes_per_s /= 1e9;
  add_spread(all, "read_ceiling", "_gigabytes_per_second", read);
  all["link_share"] = decode.link_share;
  all["link_gigabytes_per_second"] = decoded.link_bytes_per_s / 1e9;
  for (const ThreadCost& cost : thread_cost) all["thread_cost"].push_back(json_of(cost, pages));
  for (const OverlapTimes& times : decoded.overlaps) all["overlap"].push_back(json_of(times));
  for (const DecodeTimes& times : decoded.mixes) all["mixed"].push_back(json_of(times));
  return all;
}

std::string StepReport::table() const {
  const DecodeShape& shape = decode.shape;
  return fmt::format(
      "1. The runtime on the engine's thread: a token for each sequence, attention and its "
      "outcome,\n"
      "   {} layers, {} pages a sequence, on a device that does nothing. Median (p10-p90).\n\n{}\n"
      "2. Copies behind computing: {} sequences of {} tokens in {}, {} layers of {} heads, over a\n"
      "   link of {:.2f} GB/s: {} of what {} CPUs can read, {:.1f} GB/s ({:.1f}-{:.1f} "
      "meanwhile).\n\n{}\n"
      "3. The same KV in several places, beside streaming all of it:\n\n{}\n"
      "What shares what: the \"GPU\" is one thread, the link's copies are another, attention on "
      "the\n"
      "CPU is {}, and the engine's thread sleeps while it waits; all on {} CPUs and one memory.\n",
      ThreadCost::kLayers, pages, table_of(thread_cost), shape.batch, shape.tokens, decode.format,
      shape.layers, shape.heads, decoded.link_bytes_per_s / 1e9, percent(decode.link_share), cpus,
      decoded.read_bytes_per_s.median / 1e9, decoded.read_bytes_per_s.p10 / 1e9,
      decoded.read_bytes_per_s.p90 / 1e9, table_of(decoded.overlaps), table_of(decoded.mixes),
      shape.host_threads == 1 ? "one more" : fmt::format("{} more", shape.host_threads), cpus);
}

}  // namespace modalkv
