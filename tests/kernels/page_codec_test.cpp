#include "kernels/page_codec.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <vector>

#include "kernels/quantizer.hpp"
#include "tests/kernels/formats.hpp"
#include "tests/kernels/made_pages.hpp"
#include "tests/kernels/reference_page.hpp"

namespace modalkv {
namespace {

// Largest error of a side, in units of what largest_error allows for the element's group. Groups
// are worked out here from the format's description.
double worst_error(const PageShape& shape, const ElementFormat& format, const Tensor& tensor,
                   const std::vector<float>& decoded, Tokens tokens) {
  double worst = 0;
  const auto group = static_cast<Tokens>(group_elements(format, shape));
  for (Tokens token = 0; token < tokens; ++token)
    for (int head = 0; head < shape.kv_heads; ++head)
      for (int dim = 0; dim < shape.head_dim; ++dim) {
        float least = INFINITY, most = -INFINITY;
        const auto see = [&](Tokens t, int d) {
          least = std::min(least, tensor.get(t, head, d));
          most = std::max(most, tensor.get(t, head, d));
        };
        const Tokens first = (format.per_channel ? token : dim) / group * group;
        const Tokens end =
            std::min(first + group, format.per_channel ? tokens : Tokens{shape.head_dim});
        for (Tokens i = first; i < end; ++i)
          format.per_channel ? see(i, dim) : see(token, static_cast<int>(i));
        const double allowed = largest_error(format, least, most, 1);
        const double error =
            std::abs(double{decoded[static_cast<std::size_t>(
                         (token * shape.kv_heads + head) * shape.head_dim + dim)]} -
                     tensor.get(token, head, dim));
        if (error > 0) worst = std::max(worst, error / allowed);
      }
  return worst;
}

TEST(PageCodec, DecodesWithinTheStatedErrorAndTheStatementIsTight) {
  for (const ElementFormat& format : test_formats()) {
    SCOPED_TRACE(describe(format));
    const PageShape shape{32, 2, 128, both(format)};
    double worst_of_format = 0;
    for (const NumberFormat number : {NumberFormat::fp16, NumberFormat::bf16})
      for (const Data data : kAllData) {
        const bool small_scale = format.scale_bytes == 1 && format.number != NumberFormat::mxfp4;
        const bool small_range = small_scale || format.number == NumberFormat::fp8_e4m3;
        if (data == Data::huge && small_range) continue;
        const Tensor keys(shape, number, data, 1), values(shape, number, data, 2);
        const Encoded encoded = encode(shape, keys, values, 32);
        ASSERT_EQ(encoded.result.status, Status::ok);
        for (const bool side : {false, true}) {
          const double worst = worst_error(shape, format, side ? values : keys,
                                           decode(shape, encoded.page, side, 32), 32);
          ASSERT_LE(worst, 1) << "data " << static_cast<int>(data);
          worst_of_format = std::max(worst_of_format, worst);
        }
      }
    EXPECT_GT(worst_of_format, 0.45);
  }
}

TEST(PageCodec, EveryShapeDecodesWithinTheStatedError) {
  for (const PageShape& shape : test_shapes()) {
    SCOPED_TRACE(describe(shape));
    const Tensor keys(shape, NumberFormat::fp16, Data::normal, 3);
    const Tensor values(shape, NumberFormat::bf16, Data::outliers, 4);
    for (const Tokens tokens : {Tokens{1}, shape.tokens / 2 + 3, shape.tokens}) {
      const Encoded encoded = encode(shape, keys, values, tokens);
      ASSERT_EQ(encoded.result.status, Status::ok);
      ASSERT_LE(worst_error(shape, shape.format.key, keys,
                            decode(shape, encoded.page, false, tokens), tokens),
                1);
      ASSERT_LE(worst_error(shape, shape.format.value, values,
                            decode(shape, encoded.page, true, tokens), tokens),
                1);
    }
  }
}

// No other code of the group would have been nearer, by more than binary32 can tell.
TEST(PageCodec, CodesAreTheNearest) {
  std::mt19937_64 random(5);
  std::normal_distribution<float> normal;
  for (const ElementFormat& format : test_formats()) {
    if (payload_bits(format.number) == 16) continue;
    SCOPED_TRACE(describe(format));
    for (int i = 0; i < 300; ++i) {
      std::vector<float> group(32);
      for (float& value : group) value = from_fp16(to_fp16(normal(random) + 0.5f));
      const auto [least, most] = std::minmax_element(group.begin(), group.end());
      const GroupScale scale = fit_scale(format, *least, *most, 1);
      const GroupCoder coder(format, scale);
      for (const float value : group) {
        const double error = std::abs(double{coder.value(coder.code(value))} - value);
        for (std::uint32_t code = 0; code < 1u << payload_bits(format.number); ++code) {
          const double other = coder.value(code);
          const bool counts = std::isfinite(other) &&
                              !(quantization(format) == Quantization::symmetric && code == 0);
          ASSERT_TRUE(!counts || error <= std::abs(other - value) * (1 + 1e-4) + 1e-6) << value;
        }
      }
    }
  }
}

TEST(PageCodec, AConstantGroupIsExactAndZerosAreZeros) {
  for (const ElementFormat& format : test_formats()) {
    SCOPED_TRACE(describe(format));
    const PageShape shape{16, 1, 64, both(format)};
    const Tensor zeros(shape, NumberFormat::fp16, Data::zeros, 1);
    for (const bool side : {false, true})
      for (const float value : decode(shape, encode(shape, zeros, zeros, 16).page, side, 16))
        ASSERT_EQ(value, 0.0f);
    if (quantization(format) != Quantization::affine) continue;
    const Tensor constant(shape, NumberFormat::fp16, Data::constant, 1);
    for (const float value : decode(shape, encode(shape, constant, constant, 16).page, false, 16))
      ASSERT_EQ(value, constant.get(0, 0, 0));
  }
}

TEST(PageCodec, APartialPageIsThePrefixOfTheFullOneAndZerosBehind) {
  for (const PageShape& shape : test_shapes()) {
    if (shape.format.key.per_channel || shape.format.value.per_channel) continue;
    SCOPED_TRACE(describe(shape));
    const Tensor keys(shape, NumberFormat::fp16, Data::normal, 7);
    const Tensor values(shape, NumberFormat::fp16, Data::normal, 8);
    const Tokens used = shape.tokens - 5;
    const Page full = encode(shape, keys, values, shape.tokens).page;
    const Page partial = encode(shape, keys, values, used).page;
    for (const bool side : {false, true}) {
      std::vector<float> prefix = decode(shape, full, side, shape.tokens);
      prefix.resize(static_cast<std::size_t>(used * shape.kv_heads * shape.head_dim));
      ASSERT_EQ(decode(shape, partial, side, used), prefix);
    }
    const PageLayout layout(shape);
    for (Tokens token = used; token < shape.tokens; ++token) {
      std::uint32_t word = 0;
      const ElementPlace place = layout.key(0, token, 0);
      std::memcpy(&word, partial.data() + place.word, 4);
      ASSERT_EQ(word, 0u);
    }
  }
}

TEST(PageCodec, NamesTheFirstElementThatIsNotANumber) {
  const PageShape shape{16, 3, 64, {int4_token_head(), per_channel(int2_grouped(0))}};
  for (const float bad : {NAN, INFINITY, -INFINITY}) {
    Tensor keys(shape, NumberFormat::fp16, Data::normal, 1);
    Tensor values = keys;
    values.set(9, 2, 63, bad);
    EncodeResult result = encode(shape, keys, values, 16).result;
    EXPECT_EQ(result.status, Status::rejected);
    EXPECT_TRUE(result.in_values);
    EXPECT_EQ(result.head, 2);
    EXPECT_EQ(result.token, 9);
    EXPECT_EQ(encode(shape, keys, values, 9).result.status, Status::ok) << "beyond those in use";
    keys.set(4, 1, 0, bad);
    result = encode(shape, keys, values, 16).result;
    EXPECT_FALSE(result.in_values);
    EXPECT_EQ(result.head, 1);
    EXPECT_EQ(result.token, 4);
  }
}

TEST(PageCodec, WhatTheFormatCannotHoldIsRejected) {
  for (const ElementFormat& format : test_formats()) {
    SCOPED_TRACE(describe(format));
    const PageShape shape{16, 1, 64, both(format)};
    Tensor keys(shape, NumberFormat::bf16, Data::normal, 1);
    const Tensor values = keys;
    keys.set(3, 0, 5, 1e30f);
    const bool holds = format.number == NumberFormat::bf16 ||
                       format.number == NumberFormat::mxfp4 || format.scale_bytes == 0;
    const bool cut = format.number == NumberFormat::fp8_e4m3;  // its scale is the caller's
    const EncodeResult result = encode(shape, keys, values, 16).result;
    if (format.number == NumberFormat::fp16 || !(holds || cut)) {
      EXPECT_EQ(result.status, Status::rejected);
      EXPECT_EQ(result.token, format.per_channel ? 0 : 3);
    } else {
      EXPECT_EQ(result.status, Status::ok);
    }
  }
}

TEST(PageCodec, TensorScalesStretchFormatsWithoutAStoredOne) {
  const PageShape shape{16, 1, 64, both(fp8_e4m3())};
  const Tensor keys(shape, NumberFormat::fp16, Data::huge, 1);
  const TensorScales scales{.key = 256, .value = 256};
  const Page page = encode(shape, keys, keys, 16, scales).page;
  const std::vector<float> decoded = decode(shape, page, false, 16, scales);
  for (Tokens token = 0; token < 16; ++token)
    for (int dim = 0; dim < 64; ++dim) {
      const float value = keys.get(token, 0, dim);
      EXPECT_NEAR(decoded[static_cast<std::size_t>(token * 64 + dim)], value,
                  largest_error(fp8_e4m3(), value, value, 256));
    }
}

// Rotation is orthogonal: the error of a block has the length that its rotated elements' have.
TEST(PageCodec, RotatedKeysComeBackWithLessErrorWhereAChannelStandsOut) {
  const auto error = [](int rotation, Data data) {
    const PageShape shape{32, 2, 128, {int4_token_head(), fp16(), rotation}};
    EXPECT_TRUE(is_page(shape));
    const Tensor keys(shape, NumberFormat::fp16, data, 1);
    const Encoded encoded = encode(shape, keys, keys, 32);
    EXPECT_EQ(encoded.result.status, Status::ok);
    const std::vector<float> decoded = decode(shape, encoded.page, false, 32);
    double sum = 0, all = 0;
    for (Tokens token = 0; token < 32; ++token)
      for (int head = 0; head < 2; ++head)
        for (int dim = 0; dim < 128; ++dim) {
          const double exact = keys.get(token, head, dim);
          const auto at = static_cast<std::size_t>((token * 2 + head) * 128 + dim);
          sum += (decoded[at] - exact) * (decoded[at] - exact);
          all += exact * exact;
        }
    return std::sqrt(sum / all);
  };
  for (const int order : {16, 32, 64, 128}) {
    SCOPED_TRACE(order);
    EXPECT_LT(error(order, Data::normal), 1.1 * error(0, Data::normal));
    EXPECT_LT(error(order, Data::outliers), error(0, Data::outliers));
  }
}

TEST(PageCodec, AKnownBiasIsNotQuantized) {
  const std::vector<ElementFormat> formats{int4_token_head(), per_channel(int4_token_head()),
                                           fp8_e4m3(), fp16()};
  for (const RopeSections sections : {RopeSections{}, RopeSections{{8, 12, 12}}})
    for (const ElementFormat& format : formats)
      for (const int rotation : {0, 32}) {
        const PageShape shape{16, 2, 64, {format, fp16(), rotation}};
        if (!is_page(shape)) continue;
        SCOPED_TRACE(describe(shape));
        std::vector<float> elements(128), frequencies(32);
        for (std::size_t i = 0; i < elements.size(); ++i)
          elements[i] = i % 7 == 0 ? 90 : static_cast<float>(i % 3);
        fill_rope_frequencies(1e6, frequencies);
        const KeyBias bias{elements.data(), frequencies.data(), sections, 64};
        std::vector<std::int32_t> positions;
        for (std::int32_t i = 0; i < 16 * sections.axes(); ++i) positions.push_back(5000 + 3 * i);
        Tensor keys(shape, NumberFormat::bf16, Data::normal, 1);
        const Tensor bare = keys;
        for (Tokens token = 0; token < 16; ++token)
          for (int head = 0; head < 2; ++head) {
            std::vector<float> rotated(64);
            rotated_bias(bias, head, positions.data() + token * sections.axes(), rotated);
            for (int dim = 0; dim < 64; ++dim)
              keys.set(token, head, dim,
                       keys.get(token, head, dim) + rotated[static_cast<std::size_t>(dim)]);
          }
        const KnownBias known{&bias, positions};
        const Encoded encoded = encode(shape, keys, bare, 13, {}, known);
        ASSERT_EQ(encoded.result.status, Status::ok);
        if (payload_bits(format.number) == 16) {
          EXPECT_EQ(encoded.page, encode(shape, keys, bare, 13).page);
        }
        const std::vector<float> decoded = decode(shape, encoded.page, false, 13, {}, known);
        double sum = 0;
        for (Tokens token = 0; token < 13; ++token)
          for (int head = 0; head < 2; ++head)
            for (int dim = 0; dim < 64; ++dim) {
              const auto at = static_cast<std::size_t>((token * 2 + head) * 64 + dim);
              const double error = decoded[at] - double{keys.get(token, head, dim)};
              sum += error * error;
            }
        // What is left are standard normal elements and the rounding of the sum to BF16.
        EXPECT_LT(std::sqrt(sum / (13 * 2 * 64)), 0.2);
      }
}

TEST(PageCodec, DecodesTo16BitsAsToFloatsRounded) {
  for (const PageShape& shape : test_shapes())
    for (const NumberFormat number : {NumberFormat::fp16, NumberFormat::bf16}) {
      const Tensor keys(shape, NumberFormat::bf16, Data::outliers, 1);
      const Tensor values(shape, NumberFormat::fp16, Data::normal, 2);
      const Tokens tokens = shape.tokens - 3;
      const Page page = encode(shape, keys, values, tokens).page;
      const std::int64_t stride = std::int64_t{shape.kv_heads} * shape.head_dim + 8;
      for (const bool side : {false, true}) {
        const std::vector<float> floats = decode(shape, page, side, tokens);
        std::vector<std::uint16_t> rows(static_cast<std::size_t>(tokens * stride), 0x5a5a);
        const MutableRows to{rows.data(), stride, shape.head_dim, number};
        side ? decode_values(shape, page, {}, to) : decode_keys(shape, page, {}, to);
        std::size_t at = 0;
        for (Tokens token = 0; token < tokens; ++token) {
          for (std::int64_t i = 0; i < stride - 8; ++i, ++at)
            ASSERT_EQ(rows[static_cast<std::size_t>(token * stride + i)],
                      number == NumberFormat::bf16 ? to_bf16(floats[at]) : to_fp16(floats[at]))
                << describe(shape);
          ASSERT_EQ(rows[static_cast<std::size_t>(token * stride + stride - 1)], 0x5a5a);
        }
      }
    }
}

// Flips bits of every byte, those in `bits(byte)`, one at a time.
template <typename Bits>
void expect_flips_are_seen(Page& page, Bits bits) {
  ASSERT_EQ(verify_page(page), Status::ok);
  for (std::size_t i = 0; i < page.size(); ++i)
    for (unsigned left = bits(i); left != 0; left &= left - 1) {
      const auto bit = static_cast<std::byte>(left & -left);
      page[i] ^= bit;
      ASSERT_EQ(verify_page(page), Status::checksum) << "byte " << i;
      page[i] ^= bit;
    }
}

// Payload, metadata of every kind, padding and trailer, of full and of partial pages.
TEST(PageCodec, AFlippedBitInAnyByteIsDetected) {
  const std::vector<ElementFormat> formats = test_formats();
  std::mt19937_64 random(1);
  bool padded = false;
  for (std::size_t i = 0; i < formats.size(); ++i) {
    const KvFormat format{formats[i], formats[(i + 1) % formats.size()]};
    for (const PageShape& shape : {PageShape{16, 1, 16, format}, {32, 2, 80, format}}) {
      SCOPED_TRACE(describe(shape));
      const bool small = shape.head_dim == 16;
      const Tokens tokens = i % 2 == 0 ? shape.tokens : shape.tokens - 5;
      const Tensor keys(shape, NumberFormat::fp16, Data::normal, i);
      Page page = encode(shape, keys, keys, tokens).page;
      ASSERT_NO_FATAL_FAILURE(expect_flips_are_seen(
          page, [&](std::size_t) { return small ? 0xffu : 1u << random() % 8; }));
      padded |= reference::PageReader(shape, page).metadata_end() + 64 < page.size();
    }
  }
  EXPECT_TRUE(padded);
}

TEST(PageCodec, TheTrailerSaysWhatItWasTold) {
  const PageShape shape{16, 2, 64, {int4_token_head(), int2_grouped(32)}};
  const Tensor keys(shape, NumberFormat::fp16, Data::normal, 1);
  const Page page = encode(shape, keys, keys, 11).page;
  const PageTrailer trailer = read_trailer(page);
  EXPECT_EQ(trailer.content, (ContentId{{1, 2, 3, 4}}));
  EXPECT_EQ(trailer.generation, 99u);
  EXPECT_EQ(trailer.tokens, 11u);
}

// The page bytes of every format, once and for all: whoever changes them changes what is on disks.
TEST(PageCodec, PageBytesAreWhatTheyWere) {
  const std::vector<std::uint64_t> golden{
      0xd503878e1c01692d, 0x9cad3ca80dc097fe, 0xa7e70118cd0d266a, 0xc671608542398134,
      0x3b89df19196aabed, 0x70fae4ed891c8834, 0xaceb1976a2226391, 0x566dd586ed5f30c6,
      0xef324bde67bc6a37, 0xcb70dc76edb0818f, 0xb07f9159a066b367, 0x7c9346b5b815dfb9,
      0x0b7ace42fb900880, 0x7976642d9c83bc41, 0xe7e660a580a36746, 0xc510f7f242e94c8f,
      0x2f302b2c6714ce62, 0xc3abfd2906056ce9, 0x4d4f859ca922d5f5, 0x1a61b9741acd6955,
      0x21d0c4723454e0dd, 0x957eee7f1291537a, 0x92c2dca0641f7107, 0x29f696bcd54da3fc,
      0x0f9e914169543e4a, 0xcb70dc76edb0818f, 0xb07f9159a066b367, 0x7c9346b5b815dfb9,
      0x0b7ace42fb900880, 0xed2c37db04f3c8c4, 0x8eeceb25fa8f1978, 0xf6e2b191c44a3c41,
      0x210c4fa94f3fa0b0, 0x70fae4ed891c8834, 0xaceb1976a2226391, 0x566dd586ed5f30c6,
      0xef324bde67bc6a37, 0xcb70dc76edb0818f, 0xb07f9159a066b367, 0x7c9346b5b815dfb9,
      0x0b7ace42fb900880, 0xed2c37db04f3c8c4, 0x8eeceb25fa8f1978, 0xf6e2b191c44a3c41,
      0x210c4fa94f3fa0b0, 0x70fae4ed891c8834, 0xaceb1976a2226391, 0x566dd586ed5f30c6,
      0xef324bde67bc6a37, 0x384e363c9e609c7c, 0x777eaecc49842b13, 0x1f407e8fdde88327,
      0xa65838117ef745e7, 0x384e363c9e609c7c, 0x777eaecc49842b13, 0x13f777c675174fac,
      0xeaed5cc41830ee7d, 0xe5cdfccb3b4face4, 0x596efb54d3eb4fb9, 0x13f777c675174fac,
      0xeaed5cc41830ee7d, 0x771979aece2e3ff9, 0xc1f10669b6bffbc0, 0x3d59e5427de431fb,
      0x4204e13d95e49a37, 0x771979aece2e3ff9, 0xc1f10669b6bffbc0};
  std::vector<std::uint64_t> found;
  for (const ElementFormat& format : test_formats()) {
    const PageShape shape{32, 2, 64, both(format)};
    Tensor keys(shape, NumberFormat::fp16, Data::zeros, 1), values = keys;
    std::uint32_t state = 1;
    for (Tokens token = 0; token < 32; ++token)
      for (int head = 0; head < 2; ++head)
        for (int dim = 0; dim < 64; ++dim)
          for (Tensor* tensor : {&keys, &values}) {
            state = state * 1664525 + 1013904223;
            tensor->set(token, head, dim, (static_cast<float>(state >> 16) - 30000) / 8192);
          }
    const Page page = encode(shape, keys, values, 27).page;
    std::uint64_t sum = 0;
    std::memcpy(&sum, page.data() + page.size() - 8, 8);
    found.push_back(sum);
  }
  std::string listed;
  for (const std::uint64_t sum : found) listed += fmt::format("{:#018x}, ", sum);
  EXPECT_EQ(found, golden) << listed;
}

TEST(PageCodec, ADamagedTrailerDoesNotLeadAstray) {
  const PageShape shape{16, 1, 64, both(int4_token_head())};
  const Tensor keys(shape, NumberFormat::fp16, Data::normal, 1);
  Page page = encode(shape, keys, keys, 16).page;
  std::memset(page.data() + page.size() - 64 + kTrailerTokens, 0xff, 4);
  EXPECT_EQ(decode(shape, page, true, 16).size(), 1024u);
}

}  // namespace
}  // namespace modalkv
