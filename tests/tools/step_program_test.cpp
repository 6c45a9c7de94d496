// The operations of a step, run one by one in virtual time, take as long as the recurrence says.
#include "runtime/step_program.hpp"

#include <gtest/gtest.h>

#include <random>

#include "offload/checking_device.hpp"
#include "offload/host_device.hpp"
#include "offload/sim_device.hpp"
#include "scheduler/batch_demand.hpp"
#include "scheduler/planner.hpp"
#include "scheduler/policies.hpp"
#include "tools/profile/profile.hpp"

namespace modalkv {
namespace {

struct Planned {
  ModelGeometry model;
  HardwareProfile hardware;
  PrecisionPolicy policy;
  CostModel cost;
  BatchDemand demand;
  StepProblem problem;
  std::optional<Placement> placement;

  Planned(const std::string& model_name, const std::string& hardware_name,
          const std::string& policy_name, int sequences, Tokens text, Tokens image,
          Bytes device_budget_bytes)
      : model(load_model(model_name)),
        hardware(load_hardware(hardware_name)),
        policy(find_policy(policy_name).value()),
        cost(model, hardware),
        demand(model, policy, cost, 0.9) {
    GroupTokens tokens{};
    const Sequence sequence{.prompt = text + image, .visual = image, .computed = text + image};
    for (int s = 0; s < sequences; ++s) demand.add(tokens, sequence, sequence.held_tokens());
    problem = demand.problem(tokens);
    problem.compute = cost.compute({.decode_tokens = sequences, .sampled_tokens = sequences});
    if (device_budget_bytes > 0) problem.device_budget_bytes = device_budget_bytes;
    placement = plan_placement(problem);
  }
};

// Duration of the last of several steps, when all is warm.
Nanos warm_step_ns(Device& device, const Planned& planned, int sequences) {
  const ProgramRun run =
      run_program(device, decode_program(planned.model, planned.problem, *planned.placement,
                                         planned.hardware.host, sequences, 3));
  EXPECT_EQ(run.status, Status::ok);
  return run.step_end_ns.at(2) - run.step_end_ns.at(1);
}

bool uses(const Placement& placement, Action action) {
  for (const Shares& shares : placement.shares)
    if (shares[static_cast<std::size_t>(action)] > 0.01) return true;
  return false;
}

TEST(StepProgram, TakesTheTimeOfTheRecurrenceWithinOnePercent) {
  const char* models[] = {"llava-1.5-7b", "qwen2.5-vl-7b", "llama-3.1-8b"};
  const char* machines[] = {"rtx-4090", "h100-sxm", "a100-40gb", "l40s", "rtx-a6000"};
  const char* policies[] = {"fp16-resident", "fp16-stream",  "fp16-offload", "uniform-int8",
                            "uniform-int4",  "text-centric", "image-centric"};
  int streamed = 0, on_cpu = 0, compressed = 0, compared = 0;
  double worst = 0;
  for (std::uint64_t seed = 1; seed <= 120; ++seed) {
    std::mt19937_64 random(seed);
    const auto one_of = [&](auto& list) { return list[random() % std::size(list)]; };
    const std::string model = one_of(models), machine = one_of(machines), policy = one_of(policies);
    const int sequences = 1 + static_cast<int>(random() % 24);
    const auto text = static_cast<Tokens>(100 + random() % 1500);
    const auto image = static_cast<Tokens>(random() % 4 * 576);
    const auto pressure = static_cast<double>(1 + random() % 12) / 8;
    Planned planned(model, machine, policy, sequences, text, image, 0);
    const double all_bytes = static_cast<double>(kv_bytes_per_token(planned.model, both(fp16()))) *
                             static_cast<double>((text + image) * sequences);
    planned.problem.device_budget_bytes = static_cast<Bytes>(all_bytes * pressure);
    planned.placement = plan_placement(planned.problem);
    if (!planned.placement) continue;
    SCOPED_TRACE(testing::Message() << "seed " << seed << ": " << model << " on " << machine << ", "
                                    << policy << ", " << sequences << " x (" << text << " text, "
                                    << image << " image), pressure " << pressure);
    SimDevice device(planned.hardware);
    const auto operations_ns = static_cast<double>(warm_step_ns(device, planned, sequences));
    const auto recurrence_ns =
        static_cast<double>(steady_step_ns(planned.problem, *planned.placement));
    EXPECT_NEAR(operations_ns / recurrence_ns, 1, 0.01);
    worst = std::max(worst, std::abs(operations_ns / recurrence_ns - 1));
    ++compared;
    const Placement& placement = *planned.placement;
    streamed += uses(placement, Action::streamed_high) || uses(placement, Action::streamed_low);
    on_cpu += uses(placement, Action::cpu_high) || uses(placement, Action::cpu_low);
    compressed += uses(placement, Action::resident_low) || uses(placement, Action::streamed_low);
  }
  RecordProperty("compared", compared);
  RecordProperty("worst_percent", std::to_string(100 * worst));
  EXPECT_GT(compared, 80);
  EXPECT_GT(streamed, 15);
  EXPECT_GT(on_cpu, 5);
  EXPECT_GT(compressed, 15);
}

TEST(StepProgram, OrdersEveryAccess) {
  for (const char* policy : {"fp16-stream", "fp16-offload", "text-centric"}) {
    const Planned planned("llava-1.5-7b", "rtx-4090", policy, 2, 100, 576, kGiB / 4);
    ASSERT_TRUE(planned.placement);
    SimDevice device(planned.hardware);
    CheckingDevice checking(device);
    warm_step_ns(checking, planned, 2);
    for (const Finding& finding : checking.findings()) ADD_FAILURE() << finding.message;
  }
}

TEST(StepProgram, WaitsForRoomInFullQueues) {
  const Planned planned("llava-1.5-7b", "rtx-4090", "fp16-stream", 16, 400, 1152, 0);
  SimDevice device(planned.hardware);
  const ProgramRun run =
      run_program(device, decode_program(planned.model, planned.problem, *planned.placement,
                                         planned.hardware.host, 16, 1));
  EXPECT_EQ(run.status, Status::ok);
  EXPECT_GT(run.times_busy, 0);
}

TEST(StepProgram, AFailureIsReportedAndEndsTheRun) {
  const Planned planned("llava-1.5-7b", "rtx-4090", "fp16-stream", 1, 100, 0, 0);
  HostDevice device;  // does not take spaces without memory
  const ProgramRun run =
      run_program(device, decode_program(planned.model, planned.problem, *planned.placement,
                                         planned.hardware.host, 1, 1));
  EXPECT_EQ(run.status, Status::rejected);
  EXPECT_TRUE(run.step_end_ns.empty());
}

}  // namespace
}  // namespace modalkv
