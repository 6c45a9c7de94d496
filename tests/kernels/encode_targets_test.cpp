// Every encoder that runs here against the definition, byte by byte: an encoder of one loop that
// knows layout and arithmetic, no lanes and no tiles.
#include "kernels/encode_targets.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "kernels/checksum.hpp"
#include "kernels/hadamard.hpp"
#include "kernels/quantizer.hpp"
#include "tests/kernels/formats.hpp"
#include "tests/kernels/made_pages.hpp"

namespace modalkv {
namespace {

// One side of one head, [tokens][dims], as it is quantized.
std::vector<std::vector<float>> source(const EncodeRequest& request, bool in_values, int head) {
  const Rows& rows = in_values ? request.values : request.keys;
  const PageShape& shape = request.shape;
  const auto dims = static_cast<std::size_t>(shape.head_dim);
  std::vector<std::vector<float>> all;
  for (Tokens token = 0; token < request.trailer.tokens; ++token) {
    std::vector<float> vector(dims);
    for (std::size_t d = 0; d < dims; ++d) {
      const std::uint16_t element =
          rows.elements[token * rows.token_stride + head * rows.head_stride +
                        static_cast<std::int64_t>(d)];
      vector[d] = from_16bit(element, rows.number);
    }
    if (!in_values && payload_bits(shape.format.key.number) < 16) {
      if (const KeyBias* bias = request.known.bias) {
        std::vector<float> rotated(dims);
        rotated_bias(*bias, head, request.known.positions.data() + token * bias->sections.axes(),
                     rotated);
        for (std::size_t d = 0; d < dims; ++d) vector[d] -= rotated[d];
      }
      if (shape.format.key_rotation > 0)
        rotate_blocks(std::span(vector), shape.format.key_rotation);
    }
    all.push_back(vector);
  }
  return all;
}

void put(Page& page, Bytes at, std::uint64_t value, int bytes) {
  for (int i = 0; i < bytes; ++i)
    page[static_cast<std::size_t>(at + i)] |= static_cast<std::byte>(value >> 8 * i & 0xff);
}

Page defined_page(const EncodeRequest& request) {
  const PageShape& shape = request.shape;
  const PageLayout layout(shape);
  Page page(static_cast<std::size_t>(page_bytes(shape)));
  const Tokens used = request.trailer.tokens;
  for (int head = 0; head < shape.kv_heads; ++head)
    for (const bool in_values : {false, true}) {
      const ElementFormat& format = in_values ? shape.format.value : shape.format.key;
      const auto elements = source(request, in_values, head);
      const float tensor_scale = in_values ? request.scales.value : request.scales.key;
      const std::int64_t group = group_elements(format, shape);
      const Bytes metadata = in_values ? layout.value_metadata(head) : layout.key_metadata(head);
      for (Tokens token = 0; token < used; ++token)
        for (int dim = 0; dim < shape.head_dim; ++dim) {
          // The group of this element, found anew for each.
          float least = INFINITY, most = -INFINITY;
          const std::int64_t first = (format.per_channel ? token : dim) / group * group;
          const std::int64_t end =
              std::min<std::int64_t>(first + group, format.per_channel ? used : shape.head_dim);
          for (std::int64_t i = first; i < end; ++i) {
            const float value =
                format.per_channel
                    ? elements[static_cast<std::size_t>(i)][static_cast<std::size_t>(dim)]
                    : elements[static_cast<std::size_t>(token)][static_cast<std::size_t>(i)];
            least = std::min(least, value);
            most = std::max(most, value);
          }
          const GroupScale scale = fit_scale(format, least, most, tensor_scale);
          const float value =
              elements[static_cast<std::size_t>(token)][static_cast<std::size_t>(dim)];
          const std::uint32_t code = format.number == NumberFormat::fp16 ? to_fp16(value)
                                     : format.number == NumberFormat::bf16
                                         ? to_bf16(value)
                                         : GroupCoder(format, scale).code(value);
          const ElementPlace place =
              in_values ? layout.value(head, token, dim) : layout.key(head, token, dim);
          put(page, place.word, std::uint64_t{code} << place.bit, 4);
          put(page, metadata + layout.scale(format, token, dim), scale.stored_scale,
              format.scale_bytes);
          put(page, metadata + layout.zero(format, token, dim), scale.stored_zero,
              format.zero_bytes);
        }
    }
  const Bytes at = layout.trailer();
  for (int i = 0; i < 4; ++i)
    put(page, at + kTrailerContentId + 8 * i,
        request.trailer.content.words[static_cast<std::size_t>(i)], 8);
  put(page, at + kTrailerGeneration, request.trailer.generation, 8);
  put(page, at + kTrailerTokens, request.trailer.tokens, 4);
  // The checksum by its definition, a word at a time.
  std::uint64_t sum = checksum_mix(static_cast<std::uint64_t>(at + kTrailerChecksum));
  for (Bytes i = 0; i < at + kTrailerChecksum; i += 8) {
    std::uint64_t word = 0;
    std::memcpy(&word, page.data() + i, 8);
    sum += checksum_mix(word + (static_cast<std::uint64_t>(i / 8) + 1) * kChecksumStep);
  }
  put(page, at + kTrailerChecksum, sum, 8);
  return page;
}

void expect_all_targets(EncodeRequest request, const std::string& what) {
  SCOPED_TRACE(what);
  const Page expected = defined_page(request);
  for (const EncodeTarget* target : encode_targets()) {
    Page page(expected.size(), std::byte{0xee});
    request.page = page;
    const EncodeResult result = encode_page(*target, request);
    ASSERT_EQ(result.status, Status::ok)
        << target->name << ", token " << result.token << (result.in_values ? " of V" : " of K");
    ASSERT_TRUE(page == expected)
        << target->name << " first differs at byte "
        << std::mismatch(page.begin(), page.end(), expected.begin()).first - page.begin();
    ASSERT_EQ(verify_page(page), Status::ok);
  }
}

EncodeRequest request_of(const PageShape& shape, const Tensor& keys, const Tensor& values,
                         Tokens tokens) {
  return {.shape = shape,
          .keys = keys.rows(),
          .values = values.rows(),
          .trailer = {{{1, 2, 3, 4}}, 99, static_cast<std::uint32_t>(tokens)},
          .scales = {.key = 0.75f, .value = 3},
          .known = {},
          .page = {}};
}

TEST(EncodeTargets, ThePortableOneIsAmongThem) {
  EXPECT_EQ(encode_targets().back()->name, "portable");
  for (const EncodeTarget* target : encode_targets())
    std::printf("tested: %s\n", std::string(target->name).c_str());
}

TEST(EncodeTargets, MakeTheDefinedBytesOfEveryFormatAndShape) {
  std::uint64_t seed = 0;
  for (const PageShape& shape : test_shapes())
    for (const NumberFormat number : {NumberFormat::fp16, NumberFormat::bf16})
      for (const Tokens tokens : {Tokens{1}, shape.tokens / 2 + 3, shape.tokens}) {
        const Tensor keys(shape, number, Data::normal, ++seed);
        const Tensor values(shape, number, Data::outliers, ++seed);
        ASSERT_NO_FATAL_FAILURE(
            expect_all_targets(request_of(shape, keys, values, tokens), describe(shape)));
      }
}

TEST(EncodeTargets, MakeTheDefinedBytesOfAllKindsOfData) {
  for (const ElementFormat& format : test_formats())
    for (const Data data : kAllData)
      for (const NumberFormat number : {NumberFormat::fp16, NumberFormat::bf16}) {
        const bool small = (format.scale_bytes == 1 && format.number != NumberFormat::mxfp4);
        if (data == Data::huge && small) continue;
        const PageShape shape{16, 1, 80, both(format)};
        const Tensor keys(shape, number, data, 1), values(shape, number, data, 2);
        ASSERT_NO_FATAL_FAILURE(expect_all_targets(
            request_of(shape, keys, values, 16),
            describe(shape) + " data " + std::to_string(static_cast<int>(data))));
      }
}

// Halves of either sign, zeros of both, subnormal numbers, ties: all bits of 16.
TEST(EncodeTargets, MakeTheDefinedBytesOfRandomBits) {
  std::mt19937_64 random(11);
  for (int round = 0; round < 300; ++round) {
    const auto& formats = test_formats();
    const ElementFormat format = formats[random() % formats.size()];
    const PageShape shape{16,
                          1,
                          16 * (1 + static_cast<int>(random() % 8)),
                          {format, formats[random() % formats.size()]}};
    const NumberFormat number = random() % 2 == 0 ? NumberFormat::fp16 : NumberFormat::bf16;
    Tensor keys(shape, number, Data::zeros, 1), values = keys;
    // A span of exponents that all formats can hold.
    const float scale = std::exp2(static_cast<float>(random() % 24) - 20);
    for (Tensor* tensor : {&keys, &values})
      for (Tokens token = 0; token < 16; ++token)
        for (int dim = 0; dim < shape.head_dim; ++dim) {
          const auto integer = static_cast<int>(random() % 65) - 32;
          tensor->set(token, 0, dim,
                      random() % 9 == 0 ? -0.0f : scale * static_cast<float>(integer) / 2);
        }
    ASSERT_NO_FATAL_FAILURE(expect_all_targets(
        request_of(shape, keys, values, 1 + static_cast<Tokens>(random() % 16)), describe(shape)));
  }
}

TEST(EncodeTargets, RotateAndSubtractAlike) {
  std::uint64_t seed = 100;
  for (const ElementFormat& format :
       {int4_token_head(), int2_grouped(32), per_channel(int4_token_head(), 16), nvfp4(), fp16()})
    for (const int dims : {64, 80, 128, 256})
      for (const int rotation : {0, 16, 32, 64, 128})
        for (const bool biased : {false, true}) {
          const PageShape shape{32, 2, dims, {format, int4_token_head(), rotation}};
          if (!is_page(shape)) continue;
          const Tensor keys(shape, NumberFormat::bf16, Data::outliers, ++seed);
          const Tensor values(shape, NumberFormat::fp16, Data::normal, ++seed);
          EncodeRequest request = request_of(shape, keys, values, 27);
          std::vector<float> elements(static_cast<std::size_t>(2 * dims));
          std::vector<float> frequencies(static_cast<std::size_t>(dims / 2));
          std::vector<std::int32_t> positions(27 * 3);
          for (std::size_t i = 0; i < elements.size(); ++i)
            elements[i] = static_cast<float>(i % 19) - 9;
          for (std::size_t i = 0; i < positions.size(); ++i)
            positions[i] = static_cast<std::int32_t>(i * i * 7);
          fill_rope_frequencies(1e6, frequencies);
          const RopeSections sections{{dims / 2 - 16, 8, 8}};
          const KeyBias bias{elements.data(), frequencies.data(), sections, dims};
          if (biased) request.known = {&bias, positions};
          ASSERT_NO_FATAL_FAILURE(expect_all_targets(request, describe(shape)));
        }
}

TEST(EncodeTargets, BlameTheSameElement) {
  for (const ElementFormat& format : test_formats()) {
    const PageShape shape{32, 3, 64, both(format)};
    SCOPED_TRACE(describe(shape));
    for (const float bad : {NAN, INFINITY, -INFINITY})
      for (const bool in_values : {false, true})
        for (const Tokens token : {0, 5, 17, 25}) {
          Tensor keys(shape, NumberFormat::fp16, Data::normal, 1);
          Tensor values = keys;
          (in_values ? values : keys).set(token, 1, 13, bad);
          values.set(30, 2, 1, NAN);  // later: not the one to blame
          for (const EncodeTarget* target : encode_targets()) {
            EncodeRequest request = request_of(shape, keys, values, 31);
            Page page(static_cast<std::size_t>(page_bytes(shape)));
            request.page = page;
            const EncodeResult result = encode_page(*target, request);
            ASSERT_EQ(result.status, Status::rejected) << target->name;
            ASSERT_EQ(result.in_values, in_values);
            ASSERT_EQ(result.head, 1);
            ASSERT_EQ(result.token, token);
            if (token == 25) {
              // Nothing of what lies behind the tokens in use is looked at.
              request.trailer.tokens = 25;
              ASSERT_EQ(encode_page(*target, request).status, Status::ok) << target->name;
            }
          }
        }
  }
}

TEST(EncodeTargets, SumBytesAlike) {
  std::mt19937_64 random(4);
  for (const std::size_t size : {0u, 1u, 7u, 8u, 63u, 64u, 65u, 200u, 4096u, 4099u}) {
    std::vector<std::byte> bytes(size);
    for (std::byte& byte : bytes) byte = static_cast<std::byte>(random());
    for (const EncodeTarget* target : encode_targets())
      EXPECT_EQ(target->checksum(bytes), kPortableTarget.checksum(bytes)) << target->name;
  }
}

TEST(EncodeTargets, RoundAllFloatsAlike) {
  std::mt19937_64 random(5);
  std::vector<float> from(1 << 16);
  for (float& value : from) {
    // Exponents from below FP16's subnormal numbers to beyond its largest.
    const auto bits = static_cast<std::uint32_t>(random());
    value = std::bit_cast<float>((bits & 0x80ffffffu) | (95 + bits % 52) << 23);
  }
  for (const EncodeTarget* target : encode_targets()) {
    std::vector<std::uint16_t> to(from.size());
    target->round_to_fp16(from, to.data());
    for (std::size_t i = 0; i < from.size(); ++i) ASSERT_EQ(to[i], to_fp16(from[i])) << from[i];
    target->round_to_bf16(from, to.data());
    for (std::size_t i = 0; i < from.size(); ++i) ASSERT_EQ(to[i], to_bf16(from[i])) << from[i];
  }
}

}  // namespace
}  // namespace modalkv
