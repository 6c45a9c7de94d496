#include "tools/bench/exact_attention.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "tools/bench/attention_batch.hpp"
#include "tools/bench/rotation.hpp"

namespace modalkv {
namespace {

TEST(ExactAttention, TwoTokensByHand) {
  // Logits 0 and ln 3: weights 1/4 and 3/4.
  ExactAttention exact({2, 0}, 0.5);
  const std::vector<float> key_a{0, 9}, key_b{static_cast<float>(std::log(3)), -9};
  const std::vector<float> value_a{4, 0}, value_b{0, 8};
  exact.add(key_a, value_a);
  exact.add(key_b, value_b);
  const auto output = exact.output();
  EXPECT_NEAR(output[0], 1, 1e-6);
  EXPECT_NEAR(output[1], 6, 1e-6);
}

TEST(ExactAttention, HugeLogitsDoNotOverflow) {
  ExactAttention exact({1e4}, 1);
  const std::vector<float> near{1}, far{-1}, value_near{3}, value_far{5};
  exact.add(far, value_far);
  exact.add(near, value_near);
  EXPECT_EQ(exact.output().front(), 3);
}

TEST(RelativeError, IsOfTheNorms) {
  EXPECT_DOUBLE_EQ(relative_l2_error(std::vector<float>{3, 4.5f}, std::vector<double>{3, 4}), 0.1);
  EXPECT_EQ(relative_l2_error(std::vector<float>{1, 2}, std::vector<double>{1, 2}), 0);
}

TEST(BatchLengths, AreUnequalAroundTheirMean) {
  EXPECT_EQ(batch_lengths(1000, 1), std::vector<Tokens>{1000});
  EXPECT_EQ(batch_lengths(1000, 4), (std::vector<Tokens>{625, 875, 1125, 1375}));
  EXPECT_EQ(batch_lengths(1, 2), (std::vector<Tokens>{1, 1}));
}

TEST(Rotation, AllCopiesExceedTheCaches) {
  EXPECT_EQ(rotation_copies(100 * kMiB, 32 * kMiB), 3);    // 256 MiB are the least
  EXPECT_EQ(rotation_copies(100 * kMiB, 256 * kMiB), 11);  // four times the cache
  EXPECT_EQ(rotation_copies(kGiB, 32 * kMiB), 2);
}

}  // namespace
}  // namespace modalkv
