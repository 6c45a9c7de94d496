#include "scheduler/admission.hpp"

#include <gtest/gtest.h>

#include "scheduler/batch_demand.hpp"
#include "scheduler/policies.hpp"
#include "tests/scheduler/sample_machine.hpp"

namespace modalkv {
namespace {

class AdmissionTest : public testing::Test {
 protected:
  // `running` sequences of 2,000 16-bit tokens each, in GPU memory for `room` of them.
  bool joins(Tokens running, double room, double link_bytes_per_s = 50e9) {
    HardwareProfile hardware = sample_hardware();
    hardware.link.h2d_bytes_per_s.value = link_bytes_per_s;
    const CostModel cost(model_, hardware);
    const PrecisionPolicy policy = find_policy("fp16-offload").value();
    const BatchDemand demand(model_, policy, cost, 0.9);
    const auto problem = [&](Tokens sequences) {
      const Tokens tokens = sequences * 2000;
      StepProblem made = demand.problem({tokens, 0, 0, tokens});
      made.compute = cost.compute({.decode_tokens = sequences, .sampled_tokens = sequences});
      made.device_budget_bytes =
          static_cast<Bytes>(room * 2000 * static_cast<double>(made.layers * demand.high_bytes()));
      return made;
    };
    return keeps_throughput(problem(running), problem(running + 1), running);
  }

  ModelGeometry model_ = sample_model();
};

TEST_F(AdmissionTest, JoinsWhileThereIsRoom) {
  for (const Tokens running : {1, 2, 8, 31}) EXPECT_TRUE(joins(running, 40)) << running;
}

TEST_F(AdmissionTest, WaitsWhereStreamingItWouldCostMoreThanItBrings) {
  EXPECT_FALSE(joins(32, 32, 1e9));
  EXPECT_TRUE(joins(32, 32, 1e13)) << "a link as fast as memory";
}

TEST_F(AdmissionTest, WaitsWhereItFitsNowhere) {
  EXPECT_FALSE(joins(1'000'000, 2));
}

}  // namespace
}  // namespace modalkv
