#include "tools/bench/step_report.hpp"

#include <fmt/format.h>

#include "tools/report/text_table.hpp"

namespace modalkv {
namespace {

nlohmann::ordered_json json_of(const ThreadCost& cost, Tokens pages) {
  return {{"batch", cost.batch},
          {"kv", cost.streamed ? "streamed" : "resident"},
          {"pages_a_sequence", pages},
          {"layers", ThreadCost::kLayers},
          {"kv_heads", ThreadCost::kKvHeads},
          {"median_us", cost.cpu.median},
          {"p10_us", cost.cpu.p10},
          {"p90_us", cost.cpu.p90},
          {"min_us", cost.cpu.min},
          {"append_us", cost.append_us},
          {"attend_us", cost.attend_us},
          {"poll_us", cost.poll_us},
          {"goal_us", cost.goal_us}};
}

std::string us(double time) {
  return fmt::format("{:.1f}", time);
}

std::string table_of(const std::vector<ThreadCost>& costs, Tokens pages) {
  TextTable table({{"batch"},
                   {"KV", TextTable::Align::left},
                   {"CPU us a layer"},
                   {"p10"},
                   {"p90"},
                   {"append"},
                   {"attend"},
                   {"poll"},
                   {"goal"},
                   {"", TextTable::Align::left}});
  for (const ThreadCost& cost : costs)
    table.add_row({fmt::format("{}", cost.batch), cost.streamed ? "streamed" : "resident",
                   us(cost.cpu.median), us(cost.cpu.p10), us(cost.cpu.p90), us(cost.append_us),
                   us(cost.attend_us), us(cost.poll_us), us(cost.goal_us),
                   cost.cpu.median <= cost.goal_us ? "met" : "missed"});
  return fmt::format(
      "The runtime's own time on the engine's thread: a token appended to each sequence, "
      "attention\n"
      "and its outcome, on a device that does nothing; {} pages a sequence.\n\n{}",
      pages, table.str());
}

}  // namespace

nlohmann::ordered_json StepReport::json() const {
  nlohmann::ordered_json all = head.json();
  for (const ThreadCost& cost : thread_cost) all["thread_cost"].push_back(json_of(cost, pages));
  return all;
}

std::string StepReport::table() const {
  return table_of(thread_cost, pages);
}

}  // namespace modalkv
