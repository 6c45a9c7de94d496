#include "tools/commands/plan.hpp"

#include <fmt/format.h>

#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "modalkv/error.hpp"
#include "scheduler/batch_demand.hpp"
#include "scheduler/cost_model.hpp"
#include "scheduler/planner.hpp"
#include "scheduler/policies.hpp"
#include "tools/commands/real_range.hpp"
#include "tools/profile/profile.hpp"
#include "tools/report/text_table.hpp"

namespace modalkv {
namespace {

struct PlanArguments {
  std::string model = "llava-1.5-7b";
  std::string hardware = "rtx-4090";
  std::string policy = "text-centric";
  int sequences = 16;
  Tokens text_tokens = 400;
  Tokens image_tokens = 1152;
  std::optional<Bytes> device_kv_budget_bytes{};
  std::optional<Bytes> host_kv_budget_bytes{};
  double memory_utilization = 0.9;
  bool json = false;
};

/// A planned decode step and what it was planned for.
struct PlannedStep {
  StepProblem problem;
  std::optional<Plan> plan;
};

double gib(Bytes bytes) {
  return static_cast<double>(bytes) / static_cast<double>(kGiB);
}
double ms(Nanos ns) {
  return static_cast<double>(ns) / static_cast<double>(kMillisecond);
}

PrecisionPolicy policy_named(const std::string& name) {
  if (auto policy = find_policy(name)) return *policy;
  std::string names;
  for (const PrecisionPolicy& known : builtin_policies())
    names += (names.empty() ? "" : ", ") + known.name;
  throw Error(fmt::format("unknown policy '{}': expected one of {}", name, names));
}

PlannedStep planned_step(const PlanArguments& arguments, const ModelGeometry& model,
                         const CostModel& cost, const PrecisionPolicy& policy) {
  const BatchDemand demand(model, policy, cost, arguments.memory_utilization);
  GroupTokens tokens{};
  const Tokens prompt = arguments.text_tokens + arguments.image_tokens;
  const Sequence sequence{.prompt = prompt, .visual = arguments.image_tokens, .computed = prompt};
  for (int i = 0; i < arguments.sequences; ++i) demand.add(tokens, sequence, prompt);
  PlannedStep step{.problem = demand.problem(tokens), .plan = std::nullopt};
  StepProblem& problem = step.problem;
  problem.compute =
      cost.compute({.decode_tokens = arguments.sequences, .sampled_tokens = arguments.sequences});
  if (arguments.device_kv_budget_bytes)
    problem.device_budget_bytes = *arguments.device_kv_budget_bytes;
  if (arguments.host_kv_budget_bytes && problem.host_budget_bytes > 0)
    problem.host_budget_bytes = *arguments.host_kv_budget_bytes;
  if (const auto placement = plan_placement(problem))
    step.plan = describe_plan(problem, *placement);
  return step;
}

std::string load_text(const ActionLoad& load) {
  if (load.tokens == 0) return "-";
  return fmt::format("{} ({:.1f} MiB)", load.tokens,
                     static_cast<double>(load.bytes) / static_cast<double>(kMiB));
}

bool same_loads(const LayerPlan& a, const LayerPlan& b) {
  for (std::size_t i = 0; i < a.actions.size(); ++i)
    if (a.actions[i].tokens != b.actions[i].tokens || a.actions[i].bytes != b.actions[i].bytes)
      return false;
  return true;
}

void print_layers(const Plan& plan) {
  std::vector<TextTable::Column> columns{{"layers", TextTable::Align::left}};
  for (int a = 0; a < kActions; ++a) columns.push_back({std::string(name(static_cast<Action>(a)))});
  TextTable table(columns);
  for (std::size_t first = 0; first < plan.layers.size();) {
    std::size_t last = first;
    while (last + 1 < plan.layers.size() && same_loads(plan.layers[first], plan.layers[last + 1]))
      ++last;
    std::vector<std::string> cells{first == last ? fmt::format("{}", first)
                                                 : fmt::format("{}-{}", first, last)};
    for (const ActionLoad& load : plan.layers[first].actions) cells.push_back(load_text(load));
    table.add_row(cells);
    first = last + 1;
  }
  fmt::print("{}", table.str());
}

void print_policies(const PlanArguments& arguments, const ModelGeometry& model,
                    const CostModel& cost) {
  TextTable table({{"policy", TextTable::Align::left},
                   {"step ms"},
                   {"tokens/s"},
                   {"GPU KV GiB"},
                   {"staging GiB"},
                   {"host GiB"},
                   {"bound by", TextTable::Align::left}});
  for (const PrecisionPolicy& policy : builtin_policies()) {
    const PlannedStep step = planned_step(arguments, model, cost, policy);
    if (!step.plan) {
      table.add_row({policy.name, "-", "-", "-", "-", "-", "does not fit"});
      continue;
    }
    const Plan& plan = *step.plan;
    table.add_row({policy.name, fmt::format("{:.2f}", ms(plan.step_ns)),
                   fmt::format("{:.0f}", arguments.sequences * 1e3 / ms(plan.step_ns)),
                   fmt::format("{:.2f}", gib(plan.device_bytes - plan.staging_bytes)),
                   fmt::format("{:.2f}", gib(plan.staging_bytes)),
                   fmt::format("{:.2f}", gib(plan.host_bytes)),
                   std::string(name(plan.bottleneck))});
  }
  fmt::print("{}", table.str());
}

void print_plan(const PlanArguments& arguments, const ModelGeometry& model, const CostModel& cost,
                const PrecisionPolicy& policy, const PlannedStep& step) {
  const Bytes token_bytes = model.layers * step.problem.demand.groups[0].high_bytes;
  const Tokens tokens = arguments.sequences * (arguments.text_tokens + arguments.image_tokens);
  fmt::print("{} on {}, policy {}: one decode step of {} sequences of {} text + {} image tokens\n",
             model.name, arguments.hardware, policy.name, arguments.sequences,
             arguments.text_tokens, arguments.image_tokens);
  fmt::print(
      "KV in 16 bits: {:.2f} GiB ({} B a token); GPU budget {:.2f} GiB, host budget {:.2f} GiB\n\n",
      gib(tokens * token_bytes), token_bytes, gib(step.problem.device_budget_bytes),
      gib(step.problem.host_budget_bytes));
  const Plan& plan = *step.plan;
  print_layers(plan);
  fmt::print("\nstep {:.3f} ms; no plan of this policy can be under {:.3f} ms (gap {:.1f} %)\n",
             ms(plan.step_ns), ms(plan.lower_bound_ns),
             100.0 * static_cast<double>(plan.step_ns - plan.lower_bound_ns) /
                 static_cast<double>(plan.step_ns));
  fmt::print("bound by: {}; {}\n", name(plan.bottleneck), plan.reason);
  if (plan.staging_slots > 0)
    fmt::print("staging: {} slots, {:.1f} MiB in all\n", plan.staging_slots,
               static_cast<double>(plan.staging_bytes) / static_cast<double>(kMiB));
  fmt::print("\nThe same step under every policy:\n");
  print_policies(arguments, model, cost);
  fmt::print("\nPredicted by the cost model, not measured. Tokens and bytes are of one layer.\n");
}

void print_json(const PlanArguments& arguments, const PrecisionPolicy& policy,
                const PlannedStep& step) {
  nlohmann::ordered_json json{{"schema_version", 1},
                              {"model", arguments.model},
                              {"hardware", arguments.hardware},
                              {"policy", policy.name},
                              {"sequences", arguments.sequences},
                              {"text_tokens", arguments.text_tokens},
                              {"image_tokens", arguments.image_tokens},
                              {"device_budget_bytes", step.problem.device_budget_bytes},
                              {"host_budget_bytes", step.problem.host_budget_bytes}};
  const Plan& plan = *step.plan;
  json["step_ns"] = plan.step_ns;
  json["lower_bound_ns"] = plan.lower_bound_ns;
  json["bottleneck"] = name(plan.bottleneck);
  json["staging_slots"] = plan.staging_slots;
  json["staging_bytes"] = plan.staging_bytes;
  json["device_bytes"] = plan.device_bytes;
  json["host_bytes"] = plan.host_bytes;
  json["reason"] = plan.reason;
  for (const LayerPlan& layer : plan.layers) {
    nlohmann::ordered_json actions;
    for (int a = 0; a < kActions; ++a) {
      const auto action = static_cast<Action>(a);
      actions[std::string(name(action))] = {{"tokens", layer[action].tokens},
                                            {"bytes", layer[action].bytes}};
    }
    json["layers"].push_back(actions);
  }
  fmt::print("{}\n", json.dump(2));
}

void run_plan(const PlanArguments& arguments) {
  const ModelGeometry model = load_model(arguments.model);
  const CostModel cost(model, load_hardware(arguments.hardware));
  const PrecisionPolicy policy = policy_named(arguments.policy);
  if (!arguments.device_kv_budget_bytes &&
      cost.device_kv_budget_bytes(arguments.memory_utilization) <= 0)
    throw Error(fmt::format("{} does not fit {}: its weights take {:.1f} GiB", arguments.model,
                            arguments.hardware, gib(cost.weight_bytes())));
  const PlannedStep step = planned_step(arguments, model, cost, policy);
  if (!step.plan)
    throw Error(fmt::format(
        "this batch does not fit under {}: GPU budget {:.2f} GiB, host budget "
        "{:.2f} GiB; use fewer sequences or a policy that may compress or offload",
        policy.name, gib(step.problem.device_budget_bytes), gib(step.problem.host_budget_bytes)));
  if (arguments.json) {
    print_json(arguments, policy, step);
  } else {
    print_plan(arguments, model, cost, policy, step);
  }
}

}  // namespace

void add_plan_command(CLI::App& app) {
  auto arguments = std::make_shared<PlanArguments>();
  CLI::App* command = app.add_subcommand(
      "plan", "Plan one decode step of a batch and print the decision for every layer");
  command->footer(
      "Example: what should 32 chats about two images each do on a 24 GB card?\n"
      "  modalkv plan --model llava-1.5-7b --hardware rtx-4090 --sequences 32 "
      "--image-tokens 1152 --text-tokens 400");
  command->add_option("--model", arguments->model, "model name or JSON file")
      ->capture_default_str();
  command->add_option("--hardware", arguments->hardware, "machine name or JSON file")
      ->capture_default_str();
  command->add_option("--policy", arguments->policy, "precision policy")->capture_default_str();
  command->add_option("--sequences", arguments->sequences, "sequences decoding together")
      ->check(CLI::Range(1, 100'000))
      ->capture_default_str();
  command->add_option("--text-tokens", arguments->text_tokens, "text tokens of each")
      ->check(CLI::Range(0, 10'000'000))
      ->capture_default_str();
  command->add_option("--image-tokens", arguments->image_tokens, "image tokens of each")
      ->check(CLI::Range(0, 10'000'000))
      ->capture_default_str();
  command
      ->add_option("--device-kv-budget", arguments->device_kv_budget_bytes,
                   "GPU bytes for KV and staging, instead of what the card has left (8GiB ...)")
      ->transform(CLI::AsSizeValue(false));
  command
      ->add_option("--host-kv-budget", arguments->host_kv_budget_bytes,
                   "host bytes for KV, instead of what the host may pin")
      ->transform(CLI::AsSizeValue(false));
  command
      ->add_option("--memory-utilization", arguments->memory_utilization,
                   "share of the card's memory to use")
      ->check(real_range(0.05, 1.0))
      ->capture_default_str();
  command->add_flag("--json", arguments->json, "print JSON");
  command->callback([arguments] { run_plan(*arguments); });
}

}  // namespace modalkv
