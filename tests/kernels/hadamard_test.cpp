#include "kernels/hadamard.hpp"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <random>
#include <vector>

namespace modalkv {
namespace {

// Sylvester's matrix has (-1)^popcount(i & j) in row i and column j.
TEST(Hadamard, IsSylvestersMatrixOnEachBlock) {
  std::mt19937_64 random(3);
  std::normal_distribution<float> normal;
  for (const unsigned order : {16u, 32u, 64u, 128u}) {
    std::vector<float> values(2 * order);
    for (float& value : values) value = normal(random);
    std::vector<float> rotated = values;
    rotate_blocks(std::span(rotated), static_cast<int>(order));
    for (unsigned i = 0; i < values.size(); ++i) {
      double expected = 0;
      for (unsigned j = 0; j < order; ++j)
        expected += (std::popcount(i % order & j) % 2 == 0 ? 1 : -1) *
                    double{values[i / order * order + j]} / std::sqrt(order);
      ASSERT_NEAR(rotated[i], expected, 1e-5);
    }
    rotate_blocks(std::span(rotated), static_cast<int>(order));
    for (unsigned i = 0; i < values.size(); ++i) ASSERT_NEAR(rotated[i], values[i], 1e-5);
  }
}

TEST(Hadamard, ItsFactorIsTheNearestFloat) {
  for (const int order : {16, 32, 64, 128})
    EXPECT_EQ(hadamard_scale(order), static_cast<float>(1 / std::sqrt(order)));
}

}  // namespace
}  // namespace modalkv
