#include "scheduler/planner.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <span>
#include <vector>

#include "scheduler/linear_program.hpp"

namespace modalkv {
namespace {

using Sense = LinearProgram::Sense;

constexpr std::array kSlotChoices{2, 4};
constexpr std::array kBlends{0.25, 0.5, 0.75, 1.0};

std::size_t index(Action action) {
  return static_cast<std::size_t>(action);
}

// Proportional price of all of `group` taking `action`, as a share of a step's compute time. What
// is off the GPU also pays a fixed price (Best); here, high-precision tokens are the last to leave
// it.
double premium(const StepProblem& problem, const DemandGroup& group, Action action) {
  double compressible = 0, bytes = 0;
  for (int g = 0; g < problem.demand.group_count; ++g) {
    const DemandGroup& other = problem.demand.groups[static_cast<std::size_t>(g)];
    const auto tokens = static_cast<double>(other.tokens);
    bytes += tokens * static_cast<double>(other.high_bytes);
    if (other.low_bytes > 0) compressible += tokens;
  }
  const auto tokens = static_cast<double>(group.tokens);
  double price = 0;
  if (is_low(action)) price += kPrecisionPremium * tokens / compressible;
  if (!is_resident(action)) {
    const bool precious = group.low_bytes == 0;
    const Bytes token_bytes = is_low(action) ? group.low_bytes : group.high_bytes;
    price += 0.1 * kMovementPremium * (precious ? 2 : 1) * tokens *
             static_cast<double>(token_bytes) / bytes;
  }
  return price;
}

struct LpChoice {
  int staging_slots = 2;
  PlacePermissions places{};
  bool bound = false;  ///< bound every placement from below: no premiums, no margins
};

// The program's variables: time, staging, then the permitted (group, action) shares.
class PlacementProgram {
 public:
  PlacementProgram(const StepProblem& problem, const LpChoice& choice)
      : problem_(problem), choice_(choice) {
    for (int g = 0; g < problem.demand.group_count; ++g)
      if (group(g).tokens > 0)
        for (int a = 0; a < kActions; ++a)
          if (permitted(group(g), static_cast<Action>(a)))
            variables_.push_back({g, static_cast<Action>(a)});
    const ComputeTimes& compute = problem.compute;
    const double layers = problem.layers;
    gemm_ns_ =
        layers * static_cast<double>(compute.before_attention_ns + compute.after_attention_ns) +
        static_cast<double>(compute.step_ns);
    gpu_ns_ = gemm_ns_ + layers * static_cast<double>(compute.fresh_attention_ns);
  }

  std::optional<LinearProgram::Solution> solve() const {
    LinearProgram program(2 + variables_.size());
    program.minimize(kTime, 1);
    add_shares(program);
    add_memory(program);
    add_time(program);
    return program.solve();
  }

  Placement placement(const LinearProgram::Solution& solution) const {
    Placement result{.staging_slots = choice_.staging_slots};
    for (std::size_t v = 0; v < variables_.size(); ++v)
      result.shares[static_cast<std::size_t>(variables_[v].group)][index(variables_[v].action)] =
          std::max(0.0, solution.values[v + 2]);
    return result;
  }

  /// The program measures time in this unit.
  double time_unit_ns() const { return gpu_ns_; }

 private:
  static constexpr std::size_t kTime = 0, kStaging = 1;
  struct Variable {
    int group;
    Action action;
  };

  const DemandGroup& group(int g) const {
    return problem_.demand.groups[static_cast<std::size_t>(g)];
  }

  bool permitted(const DemandGroup& of, Action action) const {
    const PlacePermissions& places = choice_.places;
    if (is_low(action) && of.low_bytes == 0) return false;
    if (!is_low(action) && of.encoded >= of.tokens) return false;
    if (is_resident(action)) return places.resident;
    // Off the GPU, 16 bits are never better than what may be compressed.
    if (!is_low(action) && of.low_bytes > 0) return false;
    return is_streamed(action) ? places.streamed : places.cpu;
  }

  double bytes_of(const Variable& variable) const {  // of the whole group, in one layer
    const DemandGroup& of = group(variable.group);
    return static_cast<double>(of.tokens) *
           static_cast<double>(is_low(variable.action) ? of.low_bytes : of.high_bytes);
  }

  // Shares become whole tokens: a token of each group may land on either side.
  double rounding_bytes() const {
    Bytes bytes = 0;
    for (int g = 0; g < problem_.demand.group_count; ++g)
      if (group(g).tokens > 0)
        bytes += std::max(problem_.layers_of(group(g).kind), choice_.staging_slots) *
                 group(g).high_bytes;
    return static_cast<double>(bytes);
  }

  void add_shares(LinearProgram& program) const {
    for (int g = 0; g < problem_.demand.group_count; ++g) {
      if (group(g).tokens == 0) continue;
      const std::size_t whole = program.add_row(Sense::equal, 1);
      for (std::size_t v = 0; v < variables_.size(); ++v)
        if (variables_[v].group == g) program.set(whole, v + 2, 1);
      if (group(g).encoded == 0) continue;
      const double encoded =
          static_cast<double>(group(g).encoded) / static_cast<double>(group(g).tokens);
      const std::size_t uncompressed = program.add_row(Sense::at_most, 1 - encoded);
      for (std::size_t v = 0; v < variables_.size(); ++v)
        if (variables_[v].group == g && !is_low(variables_[v].action))
          program.set(uncompressed, v + 2, 1);
    }
  }

  void add_memory(LinearProgram& program) const {
    const auto device_unit = static_cast<double>(std::max<Bytes>(1, problem_.device_budget_bytes));
    const auto host_unit = static_cast<double>(std::max<Bytes>(1, problem_.host_budget_bytes));
    const double margin = choice_.bound ? 0 : rounding_bytes();
    const auto usable = [&](Bytes budget_bytes) {
      return std::max(0.0, static_cast<double>(budget_bytes) - margin);
    };
    const std::size_t device =
        program.add_row(Sense::at_most, usable(problem_.device_budget_bytes) / device_unit);
    const std::size_t host =
        program.add_row(Sense::at_most, usable(problem_.host_budget_bytes) / host_unit);
    program.set(device, kStaging, 1);
    for (const LayerKind kind : {LayerKind::planned, LayerKind::held_high}) {
      if (problem_.layers_of(kind) == 0) continue;
      const std::size_t staging =
          program.add_row(Sense::at_most, 0);  // slots x streamed <= staging
      program.set(staging, kStaging, -1);
      for (std::size_t v = 0; v < variables_.size(); ++v) {
        const DemandGroup& of = group(variables_[v].group);
        if (of.kind != kind) continue;
        const double layer_bytes = bytes_of(variables_[v]);
        const double bytes = layer_bytes * problem_.layers_of(kind);
        const std::size_t column = v + 2;
        if (is_resident(variables_[v].action)) {
          program.set(device, column, bytes / device_unit);
          continue;
        }
        program.set(host, column, bytes / host_unit);
        if (is_streamed(variables_[v].action))
          program.set(staging, column, choice_.staging_slots * layer_bytes / device_unit);
      }
    }
  }

  void add_time(LinearProgram& program) const {
    const CostModel& cost = *problem_.cost;
    const double unit = time_unit_ns();
    const std::size_t gpu = program.add_row(Sense::at_least, gpu_ns_ / unit);
    const std::size_t link = program.add_row(Sense::at_least, 0);
    // CPU attention needs the layer's queries and feeds its projection: it is serial with the
    // GEMMs.
    const std::size_t cpu = program.add_row(Sense::at_least, gemm_ns_ / unit);
    for (const std::size_t row : {gpu, link, cpu}) program.set(row, kTime, 1);
    for (std::size_t v = 0; v < variables_.size(); ++v) {
      const Variable& variable = variables_[v];
      const DemandGroup& of = group(variable.group);
      const double bytes = bytes_of(variable) * problem_.layers_of(of.kind);
      const std::size_t column = v + 2;
      const double stored_bytes = bytes * problem_.stored_share;
      const double read_ns = bytes * problem_.decode_share * cost.attend_ns_per_byte();
      if (is_resident(variable.action) || is_streamed(variable.action))
        program.set(gpu, column, -read_ns / unit);
      if (is_streamed(variable.action)) {
        const Bytes piece =
            CostModel::piece_bytes(is_low(variable.action) ? of.low_bytes : of.high_bytes);
        program.set(link, column, -stored_bytes * cost.h2d_ns_per_byte(piece) / unit);
      } else if (!is_resident(variable.action)) {
        program.set(cpu, column, -stored_bytes * cost.cpu_ns_per_byte() / unit);
      }
      if (!choice_.bound) program.minimize(column, premium(problem_, of, variable.action));
    }
  }

  const StepProblem& problem_;
  LpChoice choice_;
  std::vector<Variable> variables_;
  double gemm_ns_ = 0;  // GPU time that nothing overlaps with CPU attention
  double gpu_ns_ = 0;   // GPU time without reading stored KV
};

std::optional<Placement> solve(const StepProblem& problem, const LpChoice& choice) {
  const PlacementProgram program(problem, choice);
  const auto solution = program.solve();
  if (!solution) return std::nullopt;
  return program.placement(*solution);
}

Placement blend(const Placement& from, const Placement& to, double weight) {
  Placement result = from;
  for (std::size_t g = 0; g < result.shares.size(); ++g)
    for (std::size_t a = 0; a < result.shares[g].size(); ++a)
      result.shares[g][a] += weight * (to.shares[g][a] - from.shares[g][a]);
  return result;
}

double premiums_ns(const StepProblem& problem, const Placement& placement) {
  double share = 0;
  bool off_device = false;
  for (int g = 0; g < problem.demand.group_count; ++g) {
    const auto i = static_cast<std::size_t>(g);
    const DemandGroup& group = problem.demand.groups[i];
    for (int a = 0; a < kActions && group.tokens > 0; ++a) {
      const auto action = static_cast<Action>(a);
      const double part = placement.shares[i][index(action)];
      if (part <= 0) continue;
      share += part * premium(problem, group, action);
      off_device |= !is_resident(action);
    }
  }
  const ComputeTimes& compute = problem.compute;
  const auto compute_ns = static_cast<double>(
      problem.layers *
          (compute.before_attention_ns + compute.fresh_attention_ns + compute.after_attention_ns) +
      compute.step_ns);
  return compute_ns * (share + (off_device ? kMovementPremium : 0));
}

// Keeps the best of the placements offered.
struct Best {
  const StepProblem& problem;
  std::optional<Placement> placement{};
  double price_ns = 0;

  void offer(const Placement& candidate) {
    if (!placement_fits(problem, candidate)) return;
    const double price =
        static_cast<double>(steady_step_ns(problem, candidate)) + premiums_ns(problem, candidate);
    if (placement && price >= price_ns) return;
    placement = candidate;
    price_ns = price;
  }
};

}  // namespace

std::optional<Placement> plan_placement(const StepProblem& problem, PlanEffort effort) {
  const PlacePermissions& places = problem.policy->places;
  const Placement first = first_choice(problem);
  if (places.resident && placement_fits(problem, first)) return first;
  Best best{problem};
  if (places.resident) {
    const auto resident = solve(problem, {.places = {.resident = true}});
    if (resident) best.offer(*resident);
    if (best.placement && effort == PlanEffort::quick) return best.placement;
  }
  if (places.streamed || places.cpu) {
    const std::span<const int> slot_choices(kSlotChoices.data(),
                                            effort == PlanEffort::quick ? 1 : kSlotChoices.size());
    PlacePermissions without_cpu = places;
    without_cpu.cpu = false;
    for (const int slots : slot_choices) {
      const auto streaming = solve(problem, {.staging_slots = slots, .places = without_cpu});
      if (streaming) best.offer(*streaming);
      if (!places.cpu) continue;
      const auto with_cpu = solve(problem, {.staging_slots = slots, .places = places});
      if (!with_cpu) continue;
      for (const double weight : kBlends)
        if (streaming || weight == 1.0)
          best.offer(streaming ? blend(*streaming, *with_cpu, weight) : *with_cpu);
    }
  }
  // The programs keep room for rounding; without it the tightest form may still fit.
  if (!best.placement)
    if (const auto compact = most_compact(problem)) best.offer(*compact);
  return best.placement;
}

Nanos step_lower_bound_ns(const StepProblem& problem) {
  const PlacementProgram program(
      problem, {.staging_slots = 1, .places = problem.policy->places, .bound = true});
  const auto solution = program.solve();
  // One nanosecond a layer for the rounding of its parts.
  return solution
             ? std::max<Nanos>(0, static_cast<Nanos>(solution->objective * program.time_unit_ns()) -
                                      problem.layers)
             : 0;
}

Plan describe_plan(const StepProblem& problem, const Placement& placement) {
  const LayerLoads loads = layer_loads(problem, placement);
  const MemoryUse use = memory_use(problem, loads, placement.staging_slots);
  const auto times = layer_times(problem, loads);
  Plan plan{.staging_slots = use.staging_bytes > 0 ? placement.staging_slots : 0,
            .staging_bytes = use.staging_bytes,
            .device_bytes = use.device_bytes(),
            .host_bytes = use.host_bytes,
            .step_ns = steady_step_ns(problem, placement),
            .lower_bound_ns = step_lower_bound_ns(problem)};
  Nanos gpu_ns = problem.compute.step_ns, link_ns = 0, cpu_ns = 0;
  for (int l = 0; l < problem.layers; ++l) {
    const LayerKind kind = problem.kind_of(l);
    LayerPlan layer;
    for (int g = 0; g < problem.demand.group_count; ++g) {
      const DemandGroup& group = problem.demand.groups[static_cast<std::size_t>(g)];
      if (group.kind != kind) continue;
      const TokenSplit tokens = split_tokens(group, placement.shares[static_cast<std::size_t>(g)]);
      for (int a = 0; a < kActions; ++a) {
        const auto action = static_cast<Action>(a);
        const Tokens count = tokens[index(action)];
        layer[action].tokens += count;
        layer[action].bytes += count * (is_low(action) ? group.low_bytes : group.high_bytes);
      }
    }
    plan.layers.push_back(layer);
    const LayerTimes& time = times[static_cast<std::size_t>(kind)];
    gpu_ns += time.before_attention_ns + time.attend_resident_ns + time.attend_streamed_ns +
              time.after_attention_ns;
    link_ns += time.copy_ns;
    cpu_ns += time.cpu_ns;
  }
  // CPU attention binds where it makes the GPU wait although the link would not.
  if (link_ns > gpu_ns) {
    plan.bottleneck = Bottleneck::link;
  } else if (cpu_ns > 0 && plan.step_ns > gpu_ns + gpu_ns / 100) {
    plan.bottleneck = Bottleneck::cpu;
  }
  if (use.host_bytes == 0) {
    plan.reason = "all KV fits the GPU budget: nothing is moved";
  } else {
    plan.reason =
        std::string("KV exceeds the GPU budget; bound by ") + std::string(name(plan.bottleneck));
  }
  return plan;
}

}  // namespace modalkv
