// What decoding gives, in double precision and from the bytes alone: layout, numbers and bounds are
// written here once more, from their descriptions, and share no code with the kernels.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <random>
#include <vector>

#include "kernels/page_codec.hpp"

namespace modalkv {
namespace {

// IEEE binary16 by its definition.
double half(std::uint16_t code) {
  const int exponent = code >> 10 & 31, fraction = code & 1023;
  const double magnitude =
      exponent == 0 ? std::ldexp(fraction, -24) : std::ldexp(1024 + fraction, exponent - 25);
  return (code & 0x8000) != 0 ? -magnitude : magnitude;
}

// Nearest half of a normal double, found by search.
std::uint16_t nearest_half(double value) {
  std::uint16_t low = 0, high = 0x7bff;
  while (low < high) {
    const auto middle = static_cast<std::uint16_t>((low + high + 1) / 2);
    half(middle) <= std::abs(value) ? low = middle : high = static_cast<std::uint16_t>(middle - 1);
  }
  if (low < 0x7bff &&
      std::abs(value) - half(low) > half(static_cast<std::uint16_t>(low + 1)) - std::abs(value))
    ++low;
  return static_cast<std::uint16_t>(low | (value < 0 ? 0x8000 : 0));
}

enum class Shape { random, outlier_channels, constant_groups, subnormal, huge, real };
constexpr Shape kShapes[] = {
    Shape::random, Shape::outlier_channels, Shape::constant_groups, Shape::subnormal, Shape::huge,
    Shape::real};

constexpr int kTokens = 32, kHeads = 2, kDims = 128;

std::vector<std::uint16_t> made(Shape shape, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<double> normal;
  std::vector<double> channel(kDims);
  for (double& mean : channel) mean = normal(random);
  std::vector<std::uint16_t> all;
  for (int i = 0; i < kTokens * kHeads * kDims; ++i) {
    const int dim = i % kDims;
    double value = normal(random);
    if (shape == Shape::outlier_channels && dim % 29 == 4) value = 80 + 15 * value;
    if (shape == Shape::constant_groups && i / kDims % 2 == 0) value = 0.7;
    if (shape == Shape::subnormal) value *= 3e-7;
    if (shape == Shape::huge) value = std::clamp(value * 12000, -60000.0, 60000.0);
    // Keys after RoPE: a few pairs of channels far from zero, turning with the token.
    if (shape == Shape::real)
      value = 0.4 * value + channel[static_cast<std::size_t>(dim)] * (dim % 64 > 54 ? 9 : 1) *
                                std::cos(i / kDims * std::pow(1e4, -(dim % 64) / 64.0));
    all.push_back(nearest_half(value));
  }
  return all;
}

// Of INT4 with FP16 scale and zero: the byte arithmetic of kernels/page_layout.md.
struct Int4Page {
  const std::vector<std::byte>& bytes;
  bool per_channel;

  std::uint32_t word(std::size_t at) const {
    std::uint32_t value = 0;
    for (std::size_t i = 0; i < 4; ++i) value |= static_cast<std::uint32_t>(bytes[at + i]) << 8 * i;
    return value;
  }
  double decoded(bool in_values, int head, int token, int dim) const {
    constexpr int side = kTokens * kDims / 2;
    const int lines = head * 2 * side + (in_values ? side : 0);
    const int row = in_values ? dim : token, depth = in_values ? token : dim;
    const int deep_lines = (in_values ? kTokens : kDims) / 8;
    const int at = lines + (row / 16 * deep_lines + depth / 8) * 64 + row % 16 * 4;
    const std::uint32_t code =
        word(static_cast<std::size_t>(at)) >> (16 * (depth % 2) + 4 * (depth % 8 / 2)) & 15;
    const int metadata_side = per_channel ? kDims * 4 : kTokens * 4;
    const int metadata = kHeads * 2 * side + (2 * head + (in_values ? 1 : 0)) * metadata_side;
    const int scale = metadata + (per_channel ? dim * 2 : token / 16 * 64 + token % 16 * 2);
    const int zero = scale + (per_channel ? kDims * 2 : 32);
    const auto load = [&](int byte) {
      return half(static_cast<std::uint16_t>(word(static_cast<std::size_t>(byte)) & 0xffff));
    };
    return code * load(scale) + load(zero);
  }
};

TEST(DecodedError, Int4PagesMeanWhatTheirDescriptionSays) {
  for (const bool per_channel : {false, true})
    for (const Shape shape : kShapes) {
      ElementFormat format = int4_token_head();
      format.per_channel = per_channel;
      const PageShape page_shape{kTokens, kHeads, kDims, both(format)};
      const std::vector<std::uint16_t> keys = made(shape, 1), values = made(shape, 2);
      std::vector<std::byte> page(static_cast<std::size_t>(page_bytes(page_shape)));
      ASSERT_EQ(encode_page(page_shape, {keys.data(), kHeads * kDims, kDims},
                            {values.data(), kHeads * kDims, kDims}, {{}, 0, kTokens}, {}, page)
                    .status,
                Status::ok);
      const Int4Page bytes{page, per_channel};
      for (const bool in_values : {false, true}) {
        const auto& input = in_values ? values : keys;
        std::vector<float> floats(input.size());
        in_values ? decode_values(page_shape, page, {}, floats)
                  : decode_keys(page_shape, page, {}, floats);
        const auto at = [](int head, int token, int dim) {
          return static_cast<std::size_t>((token * kHeads + head) * kDims + dim);
        };
        for (int head = 0; head < kHeads; ++head)
          for (int token = 0; token < kTokens; ++token)
            for (int dim = 0; dim < kDims; ++dim) {
              double least = 1e9, most = -1e9;
              for (int i = 0; i < (per_channel ? kTokens : kDims); ++i) {
                const double element =
                    half(input[per_channel ? at(head, i, dim) : at(head, token, i)]);
                least = std::min(least, element);
                most = std::max(most, element);
              }
              const double decoded = bytes.decoded(in_values, head, token, dim);
              ASSERT_NEAR(floats[at(head, token, dim)], decoded,
                          std::max(std::abs(most), std::abs(least)) * 0x1p-22);
              // Half a step, and what an FP16 scale is off by: a relative 2^-11 of the range, or
              // half the least FP16 for each of up to 15 steps and a half.
              const double bound =
                  (most - least) / 30 * (1 + 0x1p-11) + (most - least) * 0x1p-11 + 15.5 * 0x1p-25;
              ASSERT_LE(std::abs(decoded - half(input[at(head, token, dim)])), bound * (1 + 1e-6))
                  << "data " << static_cast<int>(shape) << ", token " << token << ", dim " << dim;
            }
      }
    }
}

}  // namespace
}  // namespace modalkv
