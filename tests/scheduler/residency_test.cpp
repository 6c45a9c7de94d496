#include "scheduler/residency.hpp"

#include <gtest/gtest.h>

#include "scheduler/batch_demand.hpp"
#include "scheduler/planner.hpp"
#include "scheduler/policies.hpp"
#include "tests/scheduler/sample_machine.hpp"

namespace modalkv {
namespace {

// Batches of image tokens under text-centric, in GPU memory for a given number of 16-bit tokens.
class ResidencyTest : public testing::Test {
 protected:
  StepProblem problem(Tokens tokens, Tokens room) {
    StepProblem made = demand_.problem({tokens / 10, 0, tokens - tokens / 10, tokens});
    made.device_budget_bytes = room * made.layers * demand_.high_bytes();
    made.compute = decode_;
    residency_.annotate(made);
    return made;
  }
  bool place(StepProblem made) { return residency_.place(made, decode_); }
  double share(Action action, std::size_t group = 2) const {
    return residency_.placement().shares[group][static_cast<std::size_t>(action)];
  }

  ModelGeometry model_ = sample_model();
  CostModel cost_{model_, sample_hardware()};
  PrecisionPolicy policy_ = find_policy("text-centric").value();
  BatchDemand demand_{model_, policy_, cost_, 0.9};
  ComputeTimes decode_ = cost_.compute({.decode_tokens = 16, .sampled_tokens = 16});
  Residency residency_;
};

TEST_F(ResidencyTest, WithRoomEverythingStaysAsItIs) {
  ASSERT_TRUE(place(problem(10'000, 10'100)));
  EXPECT_EQ(share(Action::resident_high), 1);
  EXPECT_TRUE(residency_.migration().empty());
  EXPECT_EQ(residency_.replans(), 0);
}

TEST_F(ResidencyTest, CompressesWhenRoomEndsAndNeverTwice) {
  ASSERT_TRUE(place(problem(10'000, 7'000)));
  EXPECT_EQ(residency_.replans(), 1);
  EXPECT_GT(residency_.migration().encode_bytes, 0);
  const StepProblem again = problem(10'000, 7'000);
  EXPECT_GT(again.demand.groups[2].encoded, 0);
  ASSERT_TRUE(place(again));
  EXPECT_EQ(residency_.replans(), 1) << "nothing has changed";
  EXPECT_TRUE(residency_.migration().empty());

  // Room for all: what is compressed stays so, and nothing moves.
  const StepProblem roomy = problem(10'000, 20'000);
  ASSERT_TRUE(place(roomy));
  EXPECT_NEAR(share(Action::resident_low),
              static_cast<double>(roomy.demand.groups[2].encoded) / 9000, 1e-3);
  EXPECT_EQ(residency_.migration().encode_bytes, 0);
}

TEST_F(ResidencyTest, GrowsIntoItsHeadroomBeforeItPlansAgain) {
  ASSERT_TRUE(place(problem(10'000, 7'000)));
  ASSERT_TRUE(place(problem(10'100, 7'000)));
  EXPECT_EQ(residency_.replans(), 1);
  ASSERT_TRUE(place(problem(12'000, 7'000)));
  EXPECT_EQ(residency_.replans(), 2);
}

TEST_F(ResidencyTest, ABatchThatShrankComesBack) {
  const auto off_gpu = [&] { return share(Action::streamed_low) + share(Action::cpu_low); };
  ASSERT_TRUE(place(problem(28'000, 7'000)));
  const double far_off = off_gpu();
  EXPECT_GT(far_off, 0) << "does not fit, even compressed";
  residency_.remove({2'800, 0, 25'200, 28'000}, {500, 0, 4'500, 5'000});
  ASSERT_TRUE(place(problem(23'000, 7'000)));
  EXPECT_EQ(residency_.replans(), 2);
  EXPECT_LT(off_gpu(), far_off);
  EXPECT_GT(residency_.migration().to_device_bytes, 0);
  residency_.remove({2'300, 0, 20'700, 23'000}, {1'300, 0, 11'700, 13'000});
  ASSERT_TRUE(place(problem(10'000, 7'000)));
  EXPECT_EQ(off_gpu(), 0) << "fits now";
}

TEST_F(ResidencyTest, PlacesAreChosenForDecoding) {
  StepProblem prefill = problem(40'000, 7'000);
  prefill.compute = cost_.compute({.prefill_tokens = 2048, .prefill_pairs = 2e6});
  prefill.decode_share = 0;
  prefill.stored_share = 0.2;
  ASSERT_TRUE(place(prefill));
  Residency other;
  StepProblem decode = problem(40'000, 7'000);
  for (DemandGroup& group : decode.demand.groups) group.encoded = 0;
  ASSERT_TRUE(other.place(decode, decode_));
  EXPECT_EQ(residency_.placement().shares, other.placement().shares);
  EXPECT_EQ(residency_.placement().staging_slots, other.placement().staging_slots);
}

TEST_F(ResidencyTest, PlacesWhateverFitsAndSaysWhatDoesNot) {
  bool fitted = false, refused = false;
  for (Tokens room = 5; room < 400; room += 5) {
    Residency fresh;
    StepProblem made = problem(1'000, room);
    made.host_budget_bytes = 300 * made.layers * demand_.high_bytes();
    for (DemandGroup& group : made.demand.groups) group.encoded = 0;
    const bool placed = fresh.place(made, decode_);
    EXPECT_TRUE(placed || !can_fit(made)) << room;
    EXPECT_TRUE(!placed || placement_fits(made, fresh.placement())) << room;
    fitted |= placed;
    refused |= !placed;
  }
  EXPECT_TRUE(fitted && refused);
}

}  // namespace
}  // namespace modalkv
