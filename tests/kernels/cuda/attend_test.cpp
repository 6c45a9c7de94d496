// Attention kernels on the emulated GPU against plain attention in double precision over what pages
// decode to, within the errors that kernels/attention.hpp states.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <string>

#include "tests/kernels/cuda/made_attend.hpp"
#include "tests/kernels/formats.hpp"
#include "tests/kernels/made_attention.hpp"

namespace modalkv {
namespace {

AttentionError expect_agrees(const MadeList& list, const MadeQueries& queries,
                             const OnGpu& gpu = {}) {
  GpuMemory memory;
  const auto op = make_over_pages<Attend>(memory, list, queries);
  EXPECT_EQ(run_attend(memory, {&op, 1}, gpu), Status::ok);
  const PageList pages = list.list();
  return ExpectedAttention(queries.queries(), {&pages, 1}, queries.head_dim)
      .check(memory.read<float>(op.partials));
}

TEST(GpuAttend, ListedFormatsHaveKernelsOfTheirOwn) {
  for (const KvFormat& format : listed_formats())
    for (const int dims : {64, 80, 96, 128, 256})
      EXPECT_FALSE(emulated_gpu::attend_is_general({64, 4, dims, format}))
          << describe({64, 4, dims, format});
  EXPECT_FALSE(emulated_gpu::attend_is_general({64, 4, 128, both(int4_grouped(128))}));
  EXPECT_TRUE(emulated_gpu::attend_is_general({64, 4, 128, both(symmetric(int4_token_head()))}));
}

TEST(GpuAttend, EveryListedFormatHeadDimensionAndGroup) {
  std::uint64_t seed = 1;
  for (const KvFormat& format : listed_formats())
    for (const auto& [dims, group] :
         {std::pair{64, 1}, {128, 7}, {128, 4}, {256, 8}, {80, 4}, {96, 16}, {128, 16}}) {
      const PageShape shape{seed % 2 == 0 ? 32 : 48, 1, dims, format};
      SCOPED_TRACE(describe(shape) + ", seed " + std::to_string(seed));
      const MadeList list = make_list(shape, shape.tokens + 7, seed);
      const NumberFormat input = seed % 3 == 0 ? NumberFormat::fp16 : NumberFormat::bf16;
      expect_agrees(list, make_queries(1, group, dims, 1, seed, input));
      ++seed;
    }
}

// What has no kernel of its own.
TEST(GpuAttend, EveryOtherFormatIsExactToo) {
  std::uint64_t seed = 1;
  for (PageShape shape : test_shapes()) {
    shape.kv_heads = std::min(shape.kv_heads, 2);
    SCOPED_TRACE(describe(shape) + ", seed " + std::to_string(seed));
    const MadeList list = make_list(shape, shape.tokens + 7, seed);
    expect_agrees(list, make_queries(1, shape.kv_heads * static_cast<int>(1 + seed % 7),
                                     shape.head_dim, 1, seed));
    ++seed;
  }
}

// One token to several pages, with parts of one stage of a warp to all in one block.
TEST(GpuAttend, EveryLengthAndSplit) {
  std::uint64_t seed = 1;
  for (const KvFormat& format : {both(fp16()), both(int4_token_head()), both(int2_grouped(64)),
                                 listed_formats()[8], both(symmetric(int8_token_head()))})
    for (const Tokens tokens : {1, 15, 16, 17, 47, 48, 300, 1000}) {
      const MadeList list = make_list({48, 2, 64, format}, tokens, seed);
      const MadeQueries queries = make_queries(1, 4, 64, 2, seed++);
      for (const int multiprocessors : {1, 4, 1000}) {
        SCOPED_TRACE(describe(list.shape) + ", " + std::to_string(tokens) + " tokens, " +
                     std::to_string(multiprocessors) + " multiprocessors");
        expect_agrees(list, queries, {.multiprocessors = multiprocessors});
      }
      expect_agrees(list, queries, {.multiprocessors = 1000, .scratch_bytes = 0});
      expect_agrees(list, queries, {.multiprocessors = 1000, .scratch_bytes = 3000});
    }
}

TEST(GpuAttend, FlatAndPeakedWithAndWithoutOutliers) {
  for (const KvFormat& format : listed_formats())
    for (const Data data :
         {Data::normal, Data::outliers, Data::one_sided, Data::tiny, Data::constant, Data::zeros}) {
      if (format.key.number == NumberFormat::fp8_e4m3 && data != Data::normal) continue;
      for (const float size : {0.0f, 0.5f, 4.0f}) {
        const PageShape shape{64, 1, 128, format};
        SCOPED_TRACE(describe(shape) + ", size " + std::to_string(size));
        expect_agrees(make_list(shape, 200, 3, data), make_queries(1, 4, 128, size, 4));
      }
    }
}

TEST(GpuAttend, LargeLogitsNeitherOverflowNorVanish) {
  for (const KvFormat& format : {both(fp16()), both(bf16())})
    expect_agrees(make_list({16, 1, 64, format}, 64, 1, Data::huge),
                  make_queries(1, 2, 64, 100, 2));
}

TEST(GpuAttend, TinyAndHugeQueries) {
  for (const KvFormat& format : {both(fp16()), both(int4_token_head()), both(bf16())})
    for (const float size : {1e-30f, 1e-6f, 1e4f})
      expect_agrees(make_list({16, 1, 64, format}, 40, 1), make_queries(1, 3, 64, size, 2));
}

// A chunk of a prefill: each query sees what is before it, within a window.
TEST(GpuAttend, ChunksSeeWhatIsBeforeThem) {
  for (const KvFormat& format : {both(int8_token_head()), both(int4_token_head()), both(bf16()),
                                 listed_formats()[8], both(small_metadata(int4_token_head()))}) {
    MadeList list = make_list({32, 2, 64, format}, 150, 1);
    for (std::int32_t t = 0; t < 150; ++t) list.positions.push_back(3 * t);  // scattered
    for (const std::int32_t window : {0, 1, 40, 1000}) {
      MadeQueries queries = make_queries(20, 4, 64, 1, 2);
      queries.window = window;
      for (std::int32_t t = 0; t < 20; ++t) queries.positions.push_back(24 * t - 18);
      SCOPED_TRACE(describe(list.shape) + ", window " + std::to_string(window));
      expect_agrees(list, queries);
    }
  }
}

TEST(GpuAttend, WideKernelsOfEveryFormat) {
  std::uint64_t seed = 1;
  for (const KvFormat& format : listed_formats())
    for (const int dims : {64, 128, 256}) {
      const PageShape shape{32, 1, dims, format};
      SCOPED_TRACE(describe(shape));
      expect_agrees(make_list(shape, 60, seed), make_queries(9, 4, dims, 1, seed));
      ++seed;
    }
}

TEST(GpuAttend, PositionsAtTheEndsOfTheirRange) {
  MadeList list = make_list({16, 1, 64, both(fp16())}, 20, 1);
  constexpr std::int32_t least = std::numeric_limits<std::int32_t>::min();
  constexpr std::int32_t most = std::numeric_limits<std::int32_t>::max();
  for (std::int32_t t = 0; t < 20; ++t)
    list.positions.push_back(t < 10 ? least + t : most - 20 + t);
  for (const std::int32_t window : {0, 5, most}) {
    MadeQueries queries = make_queries(4, 1, 64, 1, 2);
    queries.positions = {least, least + 3, 0, most};
    queries.window = window;
    expect_agrees(list, queries);
  }
}

TEST(GpuAttend, HiddenTokensAreNotSeen) {
  MadeList list = make_list({48, 1, 96, both(int4_grouped(32))}, 200, 1);
  std::mt19937_64 random(9);
  for (int word = 0; word < 4; ++word) list.hidden.push_back(random() | 0xffff'0000);
  expect_agrees(list, make_queries(2, 4, 96, 1, 2));
  list.hidden.assign(4, ~std::uint64_t{0});
  expect_agrees(list, make_queries(2, 4, 96, 1, 2));
}

TEST(GpuAttend, RotatedKeysMeetQueriesRotatedAlike) {
  std::uint64_t seed = 1;
  for (const int dims : {64, 96, 128, 256})
    for (const int order : {16, 32, 64, 128})
      for (const ElementFormat& key :
           {int4_token_head(), per_channel(int8_token_head()), int2_grouped(64), nvfp4()}) {
        if (dims % order != 0) continue;
        ElementFormat value = key.per_channel ? int8_token_head() : key;
        const PageShape shape{32, 1, dims, {key, value, order}};
        SCOPED_TRACE(describe(shape) + ", order " + std::to_string(order));
        expect_agrees(make_list(shape, 40, seed, seed % 2 == 0 ? Data::outliers : Data::one_sided),
                      make_queries(1, 4, dims, seed % 3 == 0 ? 0.5f : 4, seed + 1000));
        ++seed;
      }
}

TEST(GpuAttend, AKnownBiasComesBack) {
  const RopeSections plain{}, multimodal{{16, 24, 24}};
  std::vector<std::int32_t> scattered, grid;
  std::mt19937_64 random(3);
  for (std::int32_t t = 0; t < 100; ++t) {
    scattered.push_back(static_cast<std::int32_t>(random() % 1'000'000) - 1000);
    for (const std::int32_t position : {40, 90'000 + t / 23, 40 + t % 23}) grid.push_back(position);
  }
  for (const auto& [sections, positions] : {std::pair{plain, scattered}, {multimodal, grid}})
    for (const KvFormat& format :
         {both(int4_token_head()), KvFormat{listed_formats()[8].key, int4_token_head(), 32},
          KvFormat{int8_token_head(), int8_token_head(), 128}, both(fp8_e4m3()), both(bf16()),
          both(symmetric(int4_grouped(32)))})
      for (const float size : {0.1f, 4.0f}) {
        if (size > 1 && is_16bit(format)) continue;  // logits of 17,000 in binary32
        const PageShape shape{48, 2, 128, format};
        SCOPED_TRACE(describe(shape) + ", size " + std::to_string(size));
        MadeBias bias(shape, sections, positions, 1);
        for (float& element : bias.elements) element *= 30;
        const MadeList list = make_biased_list(shape, 100, bias, 5);
        expect_agrees(list, make_queries(size > 1 ? 3 : 1, 8, 128, size, 6));
      }
}

// Sequences of different lengths in one launch, in several orders of blocks, warps and lanes.
TEST(GpuAttend, BatchesOfUnequalLengths) {
  for (const std::uint64_t seed : {0, 1, 2, 3}) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    const PageShape shape{32, 2, 128, both(int4_token_head())};
    std::vector<MadeList> lists;
    std::vector<MadeQueries> queries;
    std::vector<Attend> ops;
    GpuMemory memory;
    for (const Tokens tokens : {1, 700, 33, 64, 5, 310}) {
      lists.push_back(make_list(shape, tokens, seed + static_cast<std::uint64_t>(tokens)));
      queries.push_back(make_queries(1, 8, 128, 1, static_cast<std::uint64_t>(tokens)));
      ops.push_back(make_over_pages<Attend>(memory, lists.back(), queries.back(), seed));
    }
    ops.push_back(ops.front());  // of another scale: a launch of its own
    ops.back().logit_scale *= 2;
    ops.back().partials = memory.room(ops.back().partials.bytes);
    OnGpu gpu;
    gpu.emulation.seed = seed;
    EXPECT_EQ(run_attend(memory, ops, gpu), Status::ok);
    for (std::size_t i = 0; i < lists.size(); ++i) {
      SCOPED_TRACE(std::to_string(lists[i].tokens) + " tokens");
      const PageList list = lists[i].list();
      expect_close(queries[i].queries(), {&list, 1}, 128, memory.read<float>(ops[i].partials));
    }
    Queries scaled = queries.front().queries();
    scaled.scale *= 2;
    const PageList list = lists.front().list();
    expect_close(scaled, {&list, 1}, 128, memory.read<float>(ops.back().partials));
  }
}

TEST(GpuAttend, MoreSequencesThanALaunchHolds) {
  const PageShape shape{16, 1, 64, both(fp8_e4m3())};
  const MadeList list = make_list(shape, 20, 1);
  std::vector<MadeQueries> queries;
  std::vector<Attend> ops;
  GpuMemory memory;
  for (std::uint64_t i = 0; i < 35; ++i) {
    queries.push_back(make_queries(1, 1, 64, 1, i));
    ops.push_back(make_over_pages<Attend>(memory, list, queries.back(), i));
  }
  EXPECT_EQ(run_attend(memory, ops), Status::ok);
  const PageList pages = list.list();
  for (std::size_t i = 0; i < ops.size(); ++i)
    expect_close(queries[i].queries(), {&pages, 1}, 64, memory.read<float>(ops[i].partials));
}

// The same partials, whatever the order in which blocks and warps run.
TEST(GpuAttend, TheOrderOfBlocksChangesNothing) {
  const MadeList list = make_list({32, 2, 64, both(int4_token_head())}, 500, 1);
  const MadeQueries queries = make_queries(1, 8, 64, 2, 2);
  std::vector<float> first;
  for (const std::uint64_t seed : {0, 1, 2, 3, 4}) {
    GpuMemory memory;
    const auto op = make_over_pages<Attend>(memory, list, queries);
    OnGpu gpu;
    gpu.emulation = {.seed = seed, .workers = seed % 2 == 0 ? 1u : 3u};
    ASSERT_EQ(run_attend(memory, {&op, 1}, gpu), Status::ok);
    const std::vector<float> partials = memory.read<float>(op.partials);
    if (first.empty()) first = partials;
    EXPECT_EQ(partials, first) << "seed " << seed;
  }
}

TEST(GpuAttend, APageOutOfBoundsIsRejected) {
  for (const KvFormat& format : {both(int4_token_head()), both(symmetric(int4_token_head()))}) {
    const MadeList list = make_list({32, 1, 64, format}, 300, 1);
    const MadeQueries queries = make_queries(1, 4, 64, 1, 2);
    const Bytes bytes = page_bytes(list.shape);
    for (const std::int64_t bad :
         {std::int64_t{-1}, -bytes, 11 * bytes - 63, std::int64_t{8},
          std::numeric_limits<std::int64_t>::min(), std::numeric_limits<std::int64_t>::max()})
      for (const std::int64_t entry : {0, 5, 9}) {
        GpuMemory memory;
        const auto op = make_over_pages<Attend>(memory, list, queries);
        std::memcpy(memory.at(op.page_table) + entry * 8, &bad, 8);
        EXPECT_EQ(run_attend(memory, {&op, 1}), Status::rejected) << bad << " at " << entry;
      }
  }
}

TEST(GpuAttend, AfterAFailureNothingIsDone) {
  const MadeList list = make_list({32, 1, 64, both(fp16())}, 30, 1);
  GpuMemory memory;
  const auto op = make_over_pages<Attend>(memory, list, make_queries(1, 4, 64, 1, 2));
  const std::vector<float> before = memory.read<float>(op.partials);
  const std::vector<std::byte*> spaces = memory.spaces();
  const Status status = OnGpu{}.run([&](const GpuLaunch& on) {
    *on.status = static_cast<std::uint32_t>(Status::checksum);
    return emulated_gpu::launch_attend({&op, 1}, spaces, on);
  });
  EXPECT_EQ(status, Status::checksum);
  const std::vector<float> after = memory.read<float>(op.partials);
  EXPECT_EQ(std::memcmp(before.data(), after.data(), before.size() * 4), 0);
}

// The check has teeth: what a broken kernel might do is beyond the stated error.
struct Planted {
  GpuMemory memory;
  MadeList list = make_list({32, 1, 64, both(int4_token_head())}, 200, 7);
  MadeQueries queries = make_queries(1, 4, 64, 1, 8);
  Attend op = make_over_pages<Attend>(memory, list, queries);

  std::vector<float> attended() {
    EXPECT_EQ(run_attend(memory, {&op, 1}), Status::ok);
    return memory.read<float>(op.partials);
  }
  // Of the output of row 0, as a share of that stated.
  double error(const std::vector<float>& partials) const {
    const PageList pages = list.list();
    const auto expected =
        reference::attention(queries.queries(), std::vector{reference::decode_list(pages)}, 64);
    double error = 0, size = 0;
    for (std::size_t d = 0; d < 64; ++d) {
      error += std::pow(partials[d] / partials[65] - expected.outputs[d], 2);
      size += std::pow(expected.outputs[d], 2);
    }
    return std::sqrt(error / size) / kIntegerAttentionError;
  }
};

TEST(GpuAttend, PlantedBugsAreSeen) {
  Planted whole;
  EXPECT_LT(whole.error(whole.attended()), 1);

  Planted left_out;  // a part of the tokens
  left_out.op.tokens -= 32;
  left_out.op.page_table.bytes -= 8;
  EXPECT_GT(left_out.error(left_out.attended()), 10);

  Planted one_token;
  one_token.op.tokens -= 1;
  EXPECT_GT(one_token.error(one_token.attended()), 1);

  Planted swapped;  // scales of V of two tokens
  const PageLayout layout(swapped.list.shape);
  std::byte* const page = swapped.memory.at(swapped.op.pages) + page_bytes(swapped.list.shape);
  std::byte* const scales = page + layout.value_metadata(0);
  for (int b = 0; b < 2; ++b) std::swap(scales[b], scales[2 + b]);
  EXPECT_GT(swapped.error(swapped.attended()), 1);
}

// A decode step as a device launches it: text in 16 bits and an image in INT4, merged, finished.
TEST(GpuAttend, AStepOverMixedFormats) {
  const MadeList text = make_list({16, 2, 128, both(bf16())}, 37, 1);
  const MadeList image = make_list({64, 2, 128, both(int4_token_head())}, 300, 2);
  const MadeQueries queries = make_queries(1, 8, 128, 1, 3);
  const Bytes part = partial_bytes(8, 128);
  GpuMemory memory;
  auto over_text = make_over_pages<Attend>(memory, text, queries);
  auto over_image = make_over_pages<Attend>(memory, image, queries);
  const Address parts = memory.room(2 * part), merged = memory.room(part);
  const Address outputs = memory.room(8 * 128 * 2), log_sum_exp = memory.room(8 * 4);
  over_text.partials = {parts.space, parts.offset, part};
  over_image.partials = {parts.space, parts.offset + part, part};
  const std::vector<Op> ops{over_text, over_image, Merge{parts, merged, 2, 8, 128},
                            Finish{merged, outputs, log_sum_exp, 8, 128, NumberFormat::bf16}};
  const std::vector<std::byte*> spaces = memory.spaces();
  EXPECT_EQ(OnGpu{}.run([&](const GpuLaunch& on) { return emulated_gpu::launch(ops, spaces, on); }),
            Status::ok);
  memory.expect_whole_red_zones();
  const PageList lists[] = {text.list(), image.list()};
  expect_close(queries.queries(), lists, 128, memory.read<float>(merged));
  const auto expected = reference::attention(
      queries.queries(),
      std::vector{reference::decode_list(lists[0]), reference::decode_list(lists[1])}, 128);
  const auto found = memory.read<std::uint16_t>(outputs);
  for (std::size_t i = 0; i < found.size(); ++i)
    ASSERT_NEAR(from_bf16(found[i]), expected.outputs[i],
                std::abs(expected.outputs[i]) * 0x1p-8 + kIntegerAttentionError)
        << i;
}

}  // namespace
}  // namespace modalkv
