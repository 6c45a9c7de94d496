#include "tools/bench/e2e/e2e_case.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <memory>
#include <utility>

#include "modalkv/error.hpp"
#include "offload/gpu_probe.hpp"
#include "scheduler/policies.hpp"
#include "tools/bench/e2e/gpu_machine.hpp"
#include "tools/bench/e2e/machine_profile.hpp"
#include "tools/bench/host_cpu.hpp"

namespace modalkv {
namespace {

constexpr std::string_view kInflated = "-inflated";

E2ePolicy policy_named(const std::string& wanted) {
  std::string_view stem = wanted;
  const bool inflates = stem.ends_with(kInflated);
  if (inflates) stem.remove_suffix(kInflated.size());
  if (auto policy = find_policy(stem)) return {wanted, std::move(*policy), inflates};
  std::string names;
  for (const PrecisionPolicy& known : builtin_policies())
    names += (names.empty() ? "" : ", ") + known.name;
  throw Error(fmt::format("--policy '{}': expected some of {}, or one of them with {}", wanted,
                          names, kInflated));
}

// What one serving of a policy says.
struct Served {
  std::vector<double> cold_ms{}, warm_ms{}, step_ms{};
};

double ms(Nanos ns) {
  return static_cast<double>(ns) / 1e6;
}

// Cold prompts, decode steps, and the same prompts again.
Served serve(E2eEngine& engine, const E2eLoad& load, E2ePolicyResult& result) {
  Served served;
  for (int nth = 0; nth < load.batch; ++nth)
    served.cold_ms.push_back(ms(engine.prefill(nth).time_ns));
  engine.settle();
  engine.decode_step();  // the next finds its first layers brought ahead
  const RuntimeCounters before = engine.counters();
  for (int step = 1; step < load.decode_steps; ++step)
    served.step_ms.push_back(ms(engine.decode_step()));
  const RuntimeCounters& after = engine.counters();
  result.streamed_bytes_a_step =
      (after.streamed_bytes - before.streamed_bytes) / (load.decode_steps - 1);
  engine.release_all();
  result.reused_tokens = 0;
  for (int nth = 0; nth < load.batch; ++nth) {
    const E2eEngine::Prefill again = engine.prefill(nth);
    result.reused_tokens += again.reused;
    served.warm_ms.push_back(ms(again.time_ns));
  }
  result.counters = engine.counters();
  result.inflated_pages = engine.inflated_pages();
  return served;
}

void append(std::vector<double>& to, const std::vector<double>& from) {
  to.insert(to.end(), from.begin(), from.end());
}

}  // namespace

E2eReport bench_e2e(const E2eCase& options, std::string_view command_line,
                    const std::function<void(std::string_view)>& progress) {
  const E2eLoad& load = options.load;
  if (load.model.experts > 0)
    throw Error(
        fmt::format("{}: mixtures of experts are not among what e2e runs", load.model.name));
  std::vector<E2ePolicy> policies;
  for (const std::string& name : options.policies) policies.push_back(policy_named(name));
  for (const E2ePolicy& policy : policies) require_room(load, policy);
  progress("making the model's weights");
  const bool on_gpu = options.place == E2ePlace::gpu ||
                      (options.place == E2ePlace::any && !probe_gpus().gpus.empty());
  const bool inflates =
      std::any_of(policies.begin(), policies.end(), [](const auto& each) { return each.inflates; });
  const E2eMachineConfig config{.model = load.model,
                                .max_rows = std::max<Tokens>(load.chunk_tokens, load.batch),
                                .device_bytes = load.device_budget_bytes + workspace_bytes(load) +
                                                (inflates ? inflation_bytes(load) + 4 * kKiB : 0),
                                .host_bytes = load.host_bytes,
                                .tables_bytes = tables_bytes(load),
                                .host_threads = options.host_threads,
                                .link_bytes_per_s = options.link_gigabytes_per_second * 1e9,
                                .seed = options.seed};
  const auto machine = on_gpu ? first_gpu_e2e_machine(config) : host_e2e_machine(config);
  progress("measuring the machine");
  E2eReport report{.head = begin_report(command_line, read_host_cpu(), options.host_threads),
                   .machine = machine->name(),
                   .load = load,
                   .rounds = options.rounds,
                   .profile = measure_machine(*machine, load)};
  std::vector<Served> all(policies.size());
  report.policies.resize(policies.size());
  for (int round = 0; round < options.rounds; ++round)
    for (std::size_t i = 0; i < policies.size(); ++i) {
      progress(fmt::format("round {} of {}: {}", round + 1, options.rounds, policies[i].name));
      E2ePolicyResult& result = report.policies[i];
      E2eEngine engine(*machine, load, policies[i], report.profile);
      result.policy = policies[i].name;
      result.predicted_step_ms = ms(engine.plan().step_ns);
      result.reason = engine.plan().reason;
      result.staging_bytes = engine.staging_bytes();
      const Served served = serve(engine, load, result);
      append(all[i].cold_ms, served.cold_ms);
      append(all[i].warm_ms, served.warm_ms);
      append(all[i].step_ms, served.step_ms);
    }
  for (std::size_t i = 0; i < policies.size(); ++i) {
    report.policies[i].cold_ttft_ms = time_spread(all[i].cold_ms);
    report.policies[i].warm_ttft_ms = time_spread(all[i].warm_ms);
    report.policies[i].tpot_ms = time_spread(all[i].step_ms);
  }
  return report;
}

}  // namespace modalkv
