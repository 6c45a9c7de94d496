// Small floats against their definition in double precision: every code, and values between, at and
// beside the midpoints of neighbours.
#include "kernels/number.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>
#include <vector>

namespace modalkv {
namespace {

struct Format {
  int exponent_bits, mantissa_bits;
  double largest;
};

constexpr Format kFp16{5, 10, 65504}, kBf16{8, 7, 3.3895313892515355e38}, kE4m3{4, 3, 448},
    kE2m1{2, 1, 6};

// By the definition: (-1)^s 2^(e - bias) (1 + m / 2^M), and without the one where e is 0.
double meaning(const Format& format, unsigned magnitude) {
  const int bias = (1 << (format.exponent_bits - 1)) - 1;
  const unsigned exponent = magnitude >> format.mantissa_bits;
  const double fraction = static_cast<double>(magnitude & ((1u << format.mantissa_bits) - 1)) /
                          static_cast<double>(1u << format.mantissa_bits);
  return exponent == 0 ? std::ldexp(fraction, 1 - bias)
                       : std::ldexp(1 + fraction, static_cast<int>(exponent) - bias);
}

template <typename From>
void expect_every_code(const Format& format, From from) {
  const unsigned sign = 1u << (format.exponent_bits + format.mantissa_bits);
  for (unsigned code = 0; meaning(format, code) <= format.largest && code < sign; ++code) {
    ASSERT_EQ(static_cast<double>(from(code)), meaning(format, code)) << code;
    ASSERT_EQ(static_cast<double>(from(code | sign)), -meaning(format, code)) << code;
    ASSERT_EQ(std::signbit(from(code | sign)), true);
  }
}

// Nearest, ties to the even code: found by looking at both neighbours.
template <typename To>
void expect_nearest(const Format& format, To to) {
  const unsigned sign = 1u << (format.exponent_bits + format.mantissa_bits);
  for (unsigned code = 0; code + 1 < sign && meaning(format, code + 1) <= format.largest; ++code) {
    const double low = meaning(format, code), high = meaning(format, code + 1);
    const auto middle = static_cast<float>((low + high) / 2);
    const unsigned even = code % 2 == 0 ? code : code + 1;
    const float infinity = std::numeric_limits<float>::infinity();
    for (const unsigned s : {0u, sign}) {
      const float direction = s == 0 ? 1.0f : -1.0f;
      ASSERT_EQ(to(direction * static_cast<float>(low)), code | s) << low;
      ASSERT_EQ(to(direction * static_cast<float>(high)), (code + 1) | s) << high;
      ASSERT_EQ(to(direction * middle), even | s) << middle;
      ASSERT_EQ(to(direction * std::nextafter(middle, 0.0f)), code | s) << middle;
      ASSERT_EQ(to(direction * std::nextafter(middle, infinity)), (code + 1) | s) << middle;
    }
  }
}

TEST(Number, Fp16) {
  expect_every_code(kFp16, [](unsigned c) { return from_fp16(static_cast<std::uint16_t>(c)); });
  expect_nearest(kFp16, to_fp16);
  EXPECT_EQ(to_fp16(65519.996f), 0x7bff);
  EXPECT_EQ(to_fp16(65520.0f), 0x7c00) << "halfway to what would be next: infinity";
  EXPECT_EQ(to_fp16(-INFINITY), 0xfc00);
  EXPECT_TRUE(std::isinf(from_fp16(0x7c00)) && std::isinf(from_fp16(0xfc00)));
  EXPECT_TRUE(std::isnan(from_fp16(to_fp16(NAN))));
}

TEST(Number, Bf16) {
  expect_every_code(kBf16, [](unsigned c) { return from_bf16(static_cast<std::uint16_t>(c)); });
  expect_nearest(kBf16, to_bf16);
  EXPECT_TRUE(std::isinf(from_bf16(to_bf16(std::numeric_limits<float>::max()))));
  EXPECT_TRUE(std::isnan(from_bf16(to_bf16(NAN))));
}

TEST(Number, E4m3) {
  expect_every_code(kE4m3, [](unsigned c) { return from_e4m3(static_cast<std::uint8_t>(c)); });
  expect_nearest(kE4m3, to_e4m3);
  EXPECT_EQ(to_e4m3(1e9f), 0x7e);
  EXPECT_EQ(to_e4m3(-INFINITY), 0xfe);
  EXPECT_TRUE(std::isnan(from_e4m3(to_e4m3(NAN))));
}

TEST(Number, E4m3UpwardsIsTheLeastThatIsNotBelow) {
  std::mt19937_64 random(1);
  for (int i = 0; i < 100'000; ++i) {
    const float value = std::exp2(std::uniform_real_distribution<float>(-14, 10)(random));
    const std::uint8_t up = to_e4m3_upwards(value);
    if (value > kLargestE4m3) {
      ASSERT_EQ(up, 0x7e);
      continue;
    }
    ASSERT_GE(from_e4m3(up), value);
    ASSERT_TRUE(up == 0 || from_e4m3(static_cast<std::uint8_t>(up - 1)) < value) << value;
  }
  EXPECT_EQ(to_e4m3_upwards(0), 0);
}

TEST(Number, E2m1) {
  expect_every_code(kE2m1, [](unsigned c) { return from_e2m1(static_cast<std::uint8_t>(c)); });
  expect_nearest(kE2m1, to_e2m1);
  const std::vector<float> all{0, 0.5f, 1, 1.5f, 2, 3, 4, 6};
  for (std::uint8_t code = 0; code < 8; ++code) EXPECT_EQ(from_e2m1(code), all[code]);
  EXPECT_EQ(to_e2m1(1e9f), 7);
}

TEST(Number, E8m0) {
  for (int code = 0; code < 255; ++code)
    ASSERT_EQ(from_e8m0(static_cast<std::uint8_t>(code)), std::ldexp(1.0f, code - 127));
}

}  // namespace
}  // namespace modalkv
