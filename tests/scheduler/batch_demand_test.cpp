#include "scheduler/batch_demand.hpp"

#include <gtest/gtest.h>

#include <random>

#include "scheduler/policies.hpp"
#include "tests/scheduler/sample_machine.hpp"

namespace modalkv {
namespace {

class BatchDemandTest : public testing::Test {
 protected:
  BatchDemand demand(const PrecisionPolicy& policy) const { return {model_, policy, cost_, 0.9}; }

  static GroupTokens groups(const BatchDemand& demand, Tokens visual, Tokens held) {
    GroupTokens tokens{};
    demand.add(tokens, {.prompt = held, .visual = visual}, held);
    return tokens;
  }

  ModelGeometry model_ = sample_model();
  CostModel cost_{model_, sample_hardware()};
};

TEST_F(BatchDemandTest, ImagesComeFirstInAPromptThatIsNotYetWhole) {
  const PrecisionPolicy policy = find_policy("text-centric").value();
  const BatchDemand made = demand(policy);
  EXPECT_EQ(groups(made, 800, 500), (GroupTokens{50, 0, 450, 500}));
  EXPECT_EQ(groups(made, 800, 800), (GroupTokens{80, 0, 720, 800}));
  EXPECT_EQ(groups(made, 800, 1000), (GroupTokens{100, 100, 800, 1000})) << "text takes the budget";
}

TEST_F(BatchDemandTest, EveryTokenIsInOneGroupAndNoGroupIsNegative) {
  std::mt19937_64 random(7);
  for (const PrecisionPolicy& policy : builtin_policies()) {
    SCOPED_TRACE(policy.name);
    const BatchDemand made = demand(policy);
    GroupTokens sum{};
    Tokens all = 0;
    for (int i = 0; i < 200; ++i) {
      const auto held = static_cast<Tokens>(random() % 5000);
      const auto visual = static_cast<Tokens>(random() % 3000);
      const GroupTokens one = groups(made, visual, held);
      for (const Tokens tokens : one) ASSERT_GE(tokens, 0);
      ASSERT_EQ(one[0] + one[1] + one[2], held);
      made.add(sum, {.prompt = held, .visual = visual}, held);
      all += held;
    }
    EXPECT_EQ(sum[0] + sum[1] + sum[2], all);
    EXPECT_EQ(sum[kPermissions], all);
  }
}

TEST_F(BatchDemandTest, LayersHeldHighHoldEveryToken) {
  PrecisionPolicy policy = find_policy("text-centric").value();
  EXPECT_EQ(demand(policy).problem({10, 0, 90, 100}).demand.group_count, 3);
  policy.high_first_layers = 1;
  policy.high_last_layers = 1;
  const StepProblem problem = demand(policy).problem({10, 0, 90, 100});
  ASSERT_EQ(problem.demand.group_count, 4);
  const DemandGroup& held = problem.demand.groups[3];
  EXPECT_EQ(held.kind, LayerKind::held_high);
  EXPECT_EQ(held.tokens, 100);
  EXPECT_EQ(held.low_bytes, 0);
  EXPECT_EQ(held.high_bytes, problem.demand.groups[0].high_bytes);
}

TEST_F(BatchDemandTest, ATokenTakesItsPartOfThePage) {
  const PrecisionPolicy policy = find_policy("text-centric").value();
  const BatchDemand made = demand(policy);
  const StepProblem problem = made.problem({10, 0, 90, 100});
  // K and V of 4 heads of 128: 2 bytes an element, or half a byte and its group's scale.
  for (const DemandGroup& group : {problem.demand.groups[0], problem.demand.groups[2]}) {
    const Bytes payload = group.low_bytes > 0 ? 2 * 4 * 128 / 2 : 2 * 4 * 128 * 2;
    const Bytes stored = group.low_bytes > 0 ? group.low_bytes : group.high_bytes;
    EXPECT_GT(stored, payload);
    EXPECT_LT(stored, payload + payload / 10);
  }
  EXPECT_EQ(made.high_bytes(), problem.demand.groups[0].high_bytes);
  EXPECT_EQ(made.stored_token_bytes(Permission::high_only),
            4 * problem.demand.groups[0].high_bytes);
  EXPECT_EQ(made.stored_token_bytes(Permission::visual_low),
            4 * problem.demand.groups[2].low_bytes);
}

TEST_F(BatchDemandTest, OnlyAPolicyThatMayUseTheHostHasItsMemory) {
  const PrecisionPolicy resident = find_policy("fp16-resident").value();
  const PrecisionPolicy offload = find_policy("fp16-offload").value();
  EXPECT_EQ(demand(resident).host_budget_bytes(), 0);
  EXPECT_EQ(demand(offload).host_budget_bytes(), 64'000'000'000);
  EXPECT_EQ(demand(resident).device_budget_bytes(), demand(offload).device_budget_bytes());
}

}  // namespace
}  // namespace modalkv
