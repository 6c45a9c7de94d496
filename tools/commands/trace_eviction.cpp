#include "tools/commands/trace_eviction.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "modalkv/error.hpp"
#include "scheduler/policies.hpp"
#include "tools/commands/real_range.hpp"
#include "tools/commands/trace_options.hpp"
#include "tools/profile/profile.hpp"
#include "tools/report/text_table.hpp"
#include "tools/trace/eviction_replay.hpp"

namespace modalkv {
namespace {

struct Arguments {
  std::string file;
  TraceArguments read;
  std::string model = "llava-1.5-7b", hardware = "rtx-4090", policy = "text-centric";
  std::string reload_by = "link";
  std::vector<double> capacity_percent = {1, 3, 10, 30};
};

double seconds(Nanos ns) {
  return static_cast<double>(ns) / static_cast<double>(kSecond);
}

double gib(Bytes bytes) {
  return static_cast<double>(bytes) / static_cast<double>(kGiB);
}

void add_outcome(TextTable& table, std::vector<std::string> cells, const EvictionOutcome& outcome) {
  const double reused = static_cast<double>(std::max<Bytes>(1, outcome.reused_bytes));
  cells.push_back(fmt::format("{:.2f} %", 100 * static_cast<double>(outcome.hit_bytes) / reused));
  cells.push_back(fmt::format("{:.2f}", seconds(outcome.reload_ns)));
  table.add_row(std::move(cells));
}

void print(const Arguments& arguments) {
  const ModelGeometry model = load_model(arguments.model);
  const CostModel cost(model, load_hardware(arguments.hardware));
  const auto policy = find_policy(arguments.policy);
  if (!policy) throw Error(fmt::format("unknown policy '{}'", arguments.policy));
  const ReloadBy by = arguments.reload_by == "link" ? ReloadBy::link : ReloadBy::recompute;
  const Trace trace = read_trace(arguments.file, arguments.read.resolved());
  const UnitUses uses = unit_uses(trace, model, *policy, cost, by);
  const Bytes all = uses.bytes();

  TextTable table(
      {{"capacity"}, {"GiB"}, {"order", TextTable::Align::left}, {"hits"}, {"reload s"}});
  Nanos reusable_ns = 0;
  for (const double percent : arguments.capacity_percent) {
    const auto capacity = static_cast<Bytes>(static_cast<double>(all) * percent / 100);
    if (percent != arguments.capacity_percent.front()) table.add_rule();
    const auto cells = [&](std::string_view order) {
      return std::vector<std::string>{fmt::format("{:g} %", percent),
                                      fmt::format("{:.1f}", gib(capacity)), std::string(order)};
    };
    for (const EvictionPolicy order :
         {EvictionPolicy::lru, EvictionPolicy::tiny_lfu, EvictionPolicy::cost_aware}) {
      const EvictionOutcome outcome = replay_eviction(uses, order, capacity);
      reusable_ns = outcome.reusable_ns;
      add_outcome(table, cells(name(order)), outcome);
    }
    add_outcome(table, cells("farthest next use"), replay_farthest(uses, capacity));
    auto bound = cells("bound");
    bound.insert(bound.end(),
                 {"", fmt::format("{:.2f}", seconds(least_reload_ns(uses, capacity)))});
    table.add_row(std::move(bound));
  }
  fmt::print(
      "{}: {} requests, {} uses of {} units, {:.1f} GiB of {} as {} stores it\n"
      "reload by {}: {:.2f} s for everything that is used again\n\n{}",
      trace.name, uses.requests(), uses.uses.size(), uses.units.size(), gib(all), model.name,
      policy->name, arguments.reload_by, seconds(reusable_ns), table.str());
}

}  // namespace

void add_trace_eviction(CLI::App& trace) {
  auto arguments = std::make_shared<Arguments>();
  CLI::App* command =
      trace.add_subcommand("eviction", "What each eviction policy would have to reload");
  command->footer(
      "A tier keeps the shareable KV of the trace's prompts. Counted are uses of KV that was "
      "there\n"
      "before: hits by bytes, and the time to bring back what had left. 'farthest next use' knows\n"
      "the future (Belady); no policy can reload less than 'bound'. Predicted, not measured.\n\n"
      "Example: photos that are shown again and again, kept or computed again\n"
      "  modalkv trace generate --workload servegen --requests 30000 --image-pool 5000 --out "
      "photos.jsonl\n"
      "  modalkv trace eviction photos.jsonl --reload-by recompute");
  command->add_option("file", arguments->file, "trace")->required();
  add_trace_options(*command, arguments->read);
  command->add_option("--model", arguments->model, "model")->capture_default_str();
  command->add_option("--hardware", arguments->hardware, "machine")->capture_default_str();
  command->add_option("--policy", arguments->policy, "precision policy: how KV is stored")
      ->capture_default_str();
  command
      ->add_option("--reload-by", arguments->reload_by,
                   "link: from the tier below; recompute: by prefill")
      ->check(CLI::IsMember({"link", "recompute"}))
      ->capture_default_str();
  command
      ->add_option("--capacity", arguments->capacity_percent,
                   "sizes of the tier, in percent of all units' bytes")
      ->delimiter(',')
      ->check(real_range(0.001, 100))
      ->capture_default_str();
  command->callback([arguments] { print(*arguments); });
}

}  // namespace modalkv
