// Pages made on the emulated GPU are those of the host, bit for bit, and nothing else is touched.
#include <gtest/gtest-spi.h>
#include <gtest/gtest.h>

#include <random>
#include <vector>

#include "kernels/key_bias.hpp"
#include "kernels/number.hpp"
#include "modalkv/op.hpp"
#include "tests/kernels/cuda/twin.hpp"
#include "tests/kernels/formats.hpp"
#include "tests/kernels/made_pages.hpp"

namespace modalkv {
namespace {

std::vector<std::uint16_t> made_rows(const PageShape& shape, Tokens tokens, NumberFormat number,
                                     Data data, std::uint64_t seed) {
  const Tensor tensor(shape, number, data, seed);
  std::vector<std::uint16_t> rows;
  for (Tokens token = 0; token < tokens; ++token)
    for (int head = 0; head < shape.kv_heads; ++head)
      for (int dim = 0; dim < shape.head_dim; ++dim)
        rows.push_back(to_16bit(tensor.get(token, head, dim), number));
  return rows;
}

// With their rows put into `twin`, `shift` bytes off.
Encode made_encode(Twin& twin, const PageShape& shape, Tokens tokens, NumberFormat number,
                   Data data, std::uint64_t seed, Bytes shift = 0) {
  Encode op{};
  op.shape = shape;
  op.tokens = tokens;
  op.input = number;
  op.keys = twin.put(made_rows(shape, tokens, number, data, seed), shift);
  op.values = twin.put(made_rows(shape, tokens, number, data, seed + 1), shift);
  op.page = twin.room(page_bytes(shape));
  op.content = {{seed, 2, 3, ~seed}};
  op.generation = seed * 77;
  return op;
}

KeyBiasAddress made_bias(Twin& twin, const PageShape& shape, Tokens tokens,
                         const RopeSections& sections, std::uint64_t seed) {
  std::mt19937_64 random(seed);
  std::normal_distribution<float> normal(0, 20);
  std::vector<float> elements(static_cast<std::size_t>(shape.kv_heads * shape.head_dim));
  for (float& element : elements) element = normal(random);
  std::vector<float> frequencies(static_cast<std::size_t>(shape.head_dim / 2));
  fill_rope_frequencies(1e6, frequencies);
  std::vector<std::int32_t> positions(static_cast<std::size_t>(tokens * sections.axes()));
  for (auto& position : positions) position = static_cast<std::int32_t>(random() % 100000);
  return {twin.put(elements), twin.put(frequencies), twin.put(positions), sections};
}

Decode made_decode(Twin& twin, const Encode& encode, NumberFormat output, Bytes shift = 0) {
  Decode op{};
  op.page = encode.page;
  op.shape = encode.shape;
  op.tokens = encode.tokens;
  op.output = output;
  op.keys = twin.room(encode.keys.bytes, shift);
  op.values = twin.room(encode.values.bytes, shift);
  op.key_scale = encode.key_scale;
  op.value_scale = encode.value_scale;
  op.key_bias = encode.key_bias;
  return op;
}

// Encodes and decodes again.
Status run_both(Twin& twin, const Encode& encode, NumberFormat output, std::uint64_t seed,
                Bytes shift = 0) {
  const Status status = twin.run(encode, {.seed = seed});
  if (status != Status::ok) return status;
  EXPECT_EQ(twin.run(made_decode(twin, encode, output, shift), {.seed = seed}), Status::ok);
  return status;
}

TEST(GpuPages, ATwinNoticesABytePastAnOutput) {
  const PageShape shape{16, 1, 64, both(int8_token_head())};
  Twin twin;
  const Encode op = made_encode(twin, shape, 16, NumberFormat::fp16, Data::normal, 1);
  const Slab gpu = twin.copy();
  twin.expect_same(gpu);
  gpu.data()[op.page.offset + op.page.bytes] ^= std::byte{1};
  EXPECT_NONFATAL_FAILURE(twin.expect_same(gpu), "on the GPU");
}

// `every`: of so many cases one; at night all of them.
void run_formats_and_shapes(std::uint64_t every) {
  std::uint64_t seed = 0;
  int rejected = 0;
  for (const PageShape& shape : test_shapes()) {
    for (const Tokens tokens : {shape.tokens, shape.tokens - 16 - 5, Tokens{3}}) {
      if (tokens < 1) continue;
      if (++seed % every != 0) continue;
      SCOPED_TRACE(fmt::format("{}, {} tokens, seed {}", describe(shape), tokens, seed));
      Twin twin;
      const NumberFormat number = seed % 2 == 0 ? NumberFormat::fp16 : NumberFormat::bf16;
      const Data data = kAllData[seed % std::size(kAllData)];
      Encode encode = made_encode(twin, shape, tokens, number, data, seed);
      encode.key_scale = 0.07f;
      encode.value_scale = 0.3f;
      if (run_both(twin, encode, number, seed) != Status::ok) ++rejected;
    }
  }
  EXPECT_LT(rejected, 30);  // huge numbers do not fit all formats
}

TEST(GpuPages, EveryFormatAndShapeIsThatOfTheHost) {
  run_formats_and_shapes(2);
}
TEST(GpuPagesNightly, EveryFormatAndShapeIsThatOfTheHost) {
  run_formats_and_shapes(1);
}

void run_head_dims(std::uint64_t every) {
  std::uint64_t seed = 100;
  for (const ElementFormat& format :
       {fp16(), bf16(), fp8_e4m3(), nvfp4(), mxfp4(), int8_token_head(), int4_grouped(32),
        int2_grouped(64), per_channel(int2_grouped(0), 32), per_channel(int4_token_head())}) {
    for (int dims = 16; dims <= 256; dims += 16) {
      if (++seed % every != 0) continue;
      const PageShape shape{32, 5, dims, both(format)};
      SCOPED_TRACE(fmt::format("{}, seed {}", describe(shape), seed));
      Twin twin;
      const Encode encode = made_encode(twin, shape, 27, NumberFormat::fp16, Data::outliers, seed);
      EXPECT_EQ(run_both(twin, encode, NumberFormat::bf16, seed), Status::ok);
    }
  }
}

TEST(GpuPages, EveryHeadDimIsThatOfTheHost) {
  run_head_dims(3);
}
TEST(GpuPagesNightly, EveryHeadDimIsThatOfTheHost) {
  run_head_dims(1);
}

void run_rotations_and_biases(std::uint64_t every) {
  std::uint64_t seed = 1000;
  for (const ElementFormat& format :
       {fp8_e4m3(), nvfp4(), int8_token_head(), int4_token_head(), int2_grouped(32),
        per_channel(int4_token_head(), 32), bf16()}) {
    for (const int dims : {64, 80, 96, 128, 256}) {
      for (const int order : {0, 16, 32, 64, 128}) {
        for (const int axes : {0, 1, 3}) {
          const PageShape shape{48, 3, dims, {format, int4_token_head(), order}};
          if (!is_page(shape) || (axes == 1 && order > 0)) continue;
          if (++seed % every != 0) continue;
          SCOPED_TRACE(
              fmt::format("{}, rotation {}, axes {}, seed {}", describe(shape), order, axes, seed));
          Twin twin;
          Encode encode = made_encode(twin, shape, 41, NumberFormat::bf16, Data::normal, seed);
          const int third = dims / 6;
          if (axes > 0)
            encode.key_bias = made_bias(
                twin, shape, 41,
                axes == 1 ? RopeSections{} : RopeSections{{dims / 2 - 2 * third, third, third}},
                seed);
          EXPECT_EQ(run_both(twin, encode, NumberFormat::bf16, seed), Status::ok);
        }
      }
    }
  }
}

TEST(GpuPages, KeysAreRotatedAndLoseTheirBiasAsOnTheHost) {
  run_rotations_and_biases(7);
}
TEST(GpuPagesNightly, KeysAreRotatedAndLoseTheirBiasAsOnTheHost) {
  run_rotations_and_biases(1);
}

TEST(GpuPages, RowsNeedNotBeAligned) {
  for (const Bytes shift : {2, 8, 14}) {
    const PageShape shape{16, 2, 80, {int8_token_head(), bf16()}};
    Twin twin;
    const Encode encode = made_encode(twin, shape, 16, NumberFormat::bf16, Data::normal, 5, shift);
    EXPECT_EQ(run_both(twin, encode, NumberFormat::fp16, 3, shift), Status::ok);
  }
}

TEST(GpuPages, NeighboursShareALaunchAndEachIsRight) {
  const PageShape shape{16, 5, 64, {int4_token_head(), int2_grouped(32), 16}};
  for (const std::size_t scratch_bytes : {std::size_t{512}, std::size_t{64} << 10}) {
    for (std::uint64_t seed = 0; seed < 2; ++seed) {
      Twin twin(4 << 20);
      std::vector<Op> ops;
      for (std::uint64_t i = 0; i < 70; ++i) {
        Encode op = made_encode(twin, shape, 1 + static_cast<Tokens>(i % 16), NumberFormat::fp16,
                                Data::normal, 7 * seed + i);
        if (i > 60) op.input = NumberFormat::bf16;
        ops.push_back(op);
        if (i == 30) ops.push_back(Fill{op.keys, 1});
      }
      EXPECT_EQ(
          twin.run(ops,
                   {.seed = seed, .workers = seed == 0 ? 2U : 1U, .scratch_bytes = scratch_bytes}),
          Status::ok);
    }
  }
}

// A page is encoded, read and encoded again into the rows' place: order counts.
TEST(GpuPages, WhatDependsOnANeighbourComesAfterIt) {
  const PageShape shape{16, 1, 64, both(int8_token_head())};
  Twin twin;
  Encode first = made_encode(twin, shape, 16, NumberFormat::fp16, Data::normal, 1);
  Encode second = made_encode(twin, shape, 16, NumberFormat::fp16, Data::normal, 2);
  Decode decode = made_decode(twin, first, NumberFormat::fp16);
  decode.keys = second.keys;
  Copy copy{second.page, twin.room(second.page.bytes)};
  Copy again{copy.to, twin.room(second.page.bytes)};
  const std::vector<Op> ops{first,
                            decode,
                            second,
                            copy,
                            again,
                            Fill{copy.to, 3},
                            Fill{{copy.to.space, copy.to.offset + 5, 9}, 4}};
  for (std::uint64_t seed = 0; seed < 6; ++seed)
    EXPECT_EQ(twin.run(ops, {.seed = seed}), Status::ok);
}

// BF16: infinities, not a number.
constexpr std::uint16_t kNotFinite[] = {0x7f80, 0xff80, 0x7fc1};

TEST(GpuPages, WhatNoPageCanHoldIsRejected) {
  std::uint64_t seed = 500;
  for (const ElementFormat& format :
       {fp16(), bf16(), fp8_e4m3(), mxfp4(), int4_grouped(32), per_channel(int8_token_head())}) {
    for (const std::uint16_t bad : kNotFinite) {
      for (const bool in_values : {false, true}) {
        ++seed;
        const PageShape shape{32, 3, 96, both(format)};
        SCOPED_TRACE(fmt::format("{}, {:x}, seed {}", describe(shape), bad, seed));
        Twin twin;
        const Encode op = made_encode(twin, shape, 20, NumberFormat::bf16, Data::normal, seed);
        const Address& rows = in_values ? op.values : op.keys;
        const Bytes at = static_cast<Bytes>(seed * 7919 % (20 * 3 * 96)) * 2;
        std::memcpy(twin.at(rows) + at, &bad, sizeof(bad));
        // The second is not begun.
        const std::vector<Op> ops{op, Fill{twin.room(64), 1}};
        EXPECT_EQ(twin.run(ops, {.seed = seed}), Status::rejected);
      }
    }
  }
  // Beyond FP16: as an element, as a scale, as a zero.
  for (const ElementFormat& format : {fp16(), int4_token_head(), per_channel(int2_grouped(0))}) {
    Twin twin;
    const PageShape shape{16, 1, 64, both(format)};
    const Encode op = made_encode(twin, shape, 16, NumberFormat::bf16, Data::normal, 9);
    const std::uint16_t large = to_bf16(-2e6f);
    std::memcpy(twin.at(op.values) + 222, &large, 2);
    EXPECT_EQ(twin.run(op), Status::rejected);
  }
}

TEST(GpuPages, OpenPagesAreFilledAndClosedAsOnTheHost) {
  std::uint64_t seed = 0;
  for (const KvFormat& format : {both(fp16()), both(bf16()), KvFormat{fp16(), bf16()}}) {
    for (const int dims : {64, 80, 256}) {
      for (const NumberFormat number : {NumberFormat::fp16, NumberFormat::bf16}) {
        ++seed;
        const PageShape shape{32, 3, dims, format};
        SCOPED_TRACE(fmt::format("{}, seed {}", describe(shape), seed));
        Twin twin;
        std::vector<Op> ops;
        std::vector<Encode> pages;  // rows and pages only
        for (std::uint64_t i = 0; i < 3; ++i)
          pages.push_back(made_encode(twin, shape, 20, number, Data::normal, seed + i));
        const Bytes token_bytes = Bytes{2} * 3 * dims;
        for (const auto& [first, tokens] : {std::pair<Tokens, Tokens>{0, 7}, {7, 1}, {8, 12}})
          for (const Encode& page : pages)
            ops.push_back(
                Append{{{0}, page.keys.offset + first * token_bytes, tokens * token_bytes},
                       {{0}, page.values.offset + first * token_bytes, tokens * token_bytes},
                       page.page,
                       shape,
                       first,
                       tokens,
                       number});
        Tokens kept = 20;
        for (const Encode& page : pages)
          ops.push_back(Close{page.page, shape, kept -= 3, page.content, 4});
        kept = 20;
        for (const Encode& page : pages) {
          Decode decode = made_decode(twin, page, NumberFormat::fp16);
          decode.tokens = kept -= 3;
          decode.keys.bytes = decode.values.bytes = decode.tokens * token_bytes;
          ops.push_back(decode);
          ops.push_back(VerifyPage{page.page, page.content, 4});
        }
        EXPECT_EQ(twin.run(ops, {.seed = seed, .workers = seed == 1 ? 2U : 1U}), Status::ok);
        // What does not fit is rejected.
        const std::uint16_t bad = 0x7f80;  // in both formats
        std::memcpy(twin.at(pages[1].values) + 40, &bad, 2);
        EXPECT_EQ(twin.run(ops, {.seed = seed}), Status::rejected);
      }
    }
  }
}

TEST(GpuPages, DamageIsFound) {
  const PageShape shape{16, 2, 128, both(int4_grouped(64))};
  Twin twin;
  const Encode op = made_encode(twin, shape, 11, NumberFormat::fp16, Data::normal, 3);
  ASSERT_EQ(twin.run(op), Status::ok);
  const VerifyPage verify{op.page, op.content, op.generation};
  Decode decode = made_decode(twin, op, NumberFormat::fp16);
  EXPECT_EQ(twin.run(verify), Status::ok);
  VerifyPage other = verify;
  other.generation ^= 1;
  EXPECT_EQ(twin.run(other), Status::checksum);
  other = verify;
  other.content.words[3] ^= 1;
  EXPECT_EQ(twin.run(other), Status::checksum);
  Decode more = decode;
  more.tokens = 10;
  more.keys.bytes = more.values.bytes = 10 * 2 * 128 * 2;
  EXPECT_EQ(twin.run(more), Status::checksum);
  for (const Bytes at : {Bytes{0}, op.page.bytes / 2, op.page.bytes - 64, op.page.bytes - 1}) {
    twin.at(op.page)[at] ^= std::byte{16};
    EXPECT_EQ(twin.run(verify), Status::checksum) << at;
    EXPECT_EQ(twin.run(decode), Status::checksum) << at;
    twin.at(op.page)[at] ^= std::byte{16};
  }
  EXPECT_EQ(twin.run(decode), Status::ok);
}

TEST(GpuPages, BytesOfAnyLengthAndPlaceAreSummedFilledAndCopied) {
  std::mt19937_64 random(11);
  for (int round = 0; round < 16; ++round) {
    SCOPED_TRACE(round);
    Twin twin;
    const auto some = [&](Bytes most) {
      return 1 + static_cast<Bytes>(random() % static_cast<std::uint64_t>(most));
    };
    std::vector<Op> ops;
    for (int i = 0; i < 40; ++i) {
      const Bytes bytes = i % 8 == 0 ? some(60000) : some(300);
      const Bytes shift = round % 2 == 0 ? 0 : some(15);
      std::vector<std::uint64_t> data(static_cast<std::size_t>(bytes / 8 + 1));
      for (auto& word : data) word = random();
      Address from = twin.put(data, shift);
      from.bytes = bytes;
      const Address sum = twin.room(8, shift);
      switch (i / 10) {
        case 0:
          ops.push_back(Checksum{from, sum});
          ops.push_back(Verify{from, sum});
          break;
        case 1:
          ops.push_back(Fill{from, static_cast<std::uint8_t>(random() % 3)});
          break;
        case 2:
          ops.push_back(Copy{from, twin.room(bytes, round % 3 == 0 ? shift : 0)});
          break;
        default:
          ops.push_back(Checksum{from, sum});
      }
    }
    EXPECT_EQ(
        twin.run(ops, {.seed = static_cast<std::uint64_t>(round), .workers = round == 0 ? 2U : 1U}),
        Status::ok);
    const auto& verify = std::get<Verify>(ops[1]);
    twin.at(verify.of)[0] ^= std::byte{1};
    EXPECT_EQ(twin.run(verify), Status::checksum);
  }
}

// More blocks a page than scratch has slots for.
TEST(GpuPages, LargePagesGetTheirChecksumsInAnotherPass) {
  const PageShape shape{512, 8, 16, both(int4_token_head())};
  Twin twin;
  const Encode op = made_encode(twin, shape, 500, NumberFormat::fp16, Data::normal, 3);
  EXPECT_EQ(twin.run(op, {.scratch_bytes = 256}), Status::ok);
}

}  // namespace
}  // namespace modalkv
