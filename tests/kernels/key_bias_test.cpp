// RoPE and the known key bias against their definitions in double precision.
#include "kernels/key_bias.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <vector>

namespace modalkv {
namespace {

constexpr RopeSections kPlain{}, kMultimodal{{16, 24, 24}};

TEST(Rope, RotationsAreThoseOfTheLibraryWithinAnUlp) {
  std::mt19937_64 random(1);
  for (int i = 0; i < 200'000; ++i) {
    const auto position = static_cast<std::int32_t>(random() % (1 << 24)) - (1 << 10);
    const auto frequency = std::exp2(std::uniform_real_distribution<float>(-20, 1)(random));
    const double angle = double{frequency} * position;
    const Rotation turn = rotation(position, frequency);
    ASSERT_NEAR(turn.cosine, std::cos(angle), 1e-7) << position << " x " << frequency;
    ASSERT_NEAR(turn.sine, std::sin(angle), 1e-7) << position << " x " << frequency;
  }
  EXPECT_EQ(rotation(0, 0.5f).cosine, 1);
  EXPECT_EQ(rotation(0, 0.5f).sine, 0);
}

// Bits of a few rotations, from another implementation of cosine and sine: whoever changes the
// arithmetic changes what is on disks.
TEST(Rope, RotationsAreWhatTheyWere) {
  const auto bits = [](float value) { return std::bit_cast<std::uint32_t>(value); };
  const Rotation a = rotation(12345, 0.0316227749f), b = rotation(-7, 1.0f);
  EXPECT_EQ(bits(a.cosine), 0x3f2d95c9u);
  EXPECT_EQ(bits(a.sine), 0x3f3c28fau);
  EXPECT_EQ(bits(b.cosine), 0x3f40ffbdu);
  EXPECT_EQ(bits(b.sine), 0xbf283046u);
}

TEST(Rope, FrequenciesFallByThePowersOfTheBase) {
  std::vector<float> frequencies(64);
  fill_rope_frequencies(1e6, frequencies);
  EXPECT_EQ(frequencies[0], 1);
  EXPECT_FLOAT_EQ(frequencies[32], 1e-3f);
}

TEST(Rope, SectionsGiveEachPairItsAxis) {
  EXPECT_EQ(kPlain.axes(), 1);
  EXPECT_EQ(kMultimodal.axes(), 3);
  EXPECT_EQ(kMultimodal.axis(15), 0);
  EXPECT_EQ(kMultimodal.axis(16), 1);
  EXPECT_EQ(kMultimodal.axis(39), 1);
  EXPECT_EQ(kMultimodal.axis(40), 2);
  EXPECT_TRUE(fits(kMultimodal, 128) && fits(kPlain, 80));
  EXPECT_FALSE(fits(kMultimodal, 64));
  EXPECT_FALSE(fits({{-1, 33, 32}}, 128));
}

class KnownKeyBias : public testing::TestWithParam<RopeSections> {
 protected:
  KnownKeyBias() : elements(2 * 128), frequencies(64), query(128) {
    for (float& element : elements) element = 30 * normal(random);
    for (float& element : query) element = normal(random);
    fill_rope_frequencies(1e6, frequencies);
  }

  // R(p) b, in complex numbers: channels i and i + 64 are one.
  double exact(int head, const std::int32_t* position, int dim) const {
    const int pair = dim % 64;
    const std::int32_t at = GetParam() == kPlain ? position[0]
                            : pair < 16          ? position[0]
                            : pair < 40          ? position[1]
                                                 : position[2];
    const double angle = double{frequencies[static_cast<std::size_t>(pair)]} * at;
    const auto b = [&](int d) {
      return double{elements[static_cast<std::size_t>(head * 128 + d)]};
    };
    return dim < 64 ? b(pair) * std::cos(angle) - b(pair + 64) * std::sin(angle)
                    : b(pair + 64) * std::cos(angle) + b(pair) * std::sin(angle);
  }

  std::mt19937_64 random{7};
  std::normal_distribution<float> normal;
  std::vector<float> elements, frequencies, query;
};

TEST_P(KnownKeyBias, IsRotatedAndItsLogitIsThatOfTheRotated) {
  const KeyBias bias{elements.data(), frequencies.data(), GetParam(), 128};
  for (const std::int32_t start : {0, 1, 1000, 131071}) {
    const std::int32_t position[] = {start, start + 5, start / 2};
    for (const int head : {0, 1}) {
      std::vector<float> rotated(128), cosines(64), sines(64);
      rotated_bias(bias, head, position, rotated);
      double logit = 0;
      for (int dim = 0; dim < 128; ++dim) {
        ASSERT_NEAR(rotated[static_cast<std::size_t>(dim)], exact(head, position, dim), 2e-5);
        logit += query[static_cast<std::size_t>(dim)] * exact(head, position, dim);
      }
      bias_terms(bias, head, query, cosines, sines);
      EXPECT_NEAR(bias_logit(bias, cosines, sines, position), logit, 1e-3);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Positions, KnownKeyBias, testing::Values(kPlain, kMultimodal));

}  // namespace
}  // namespace modalkv
