// Attention over pages against plain attention in double precision over the decoded values, on
// every kernel that this processor can run.
#include "kernels/attention.hpp"

#include <gtest/gtest.h>

#include <cstdlib>
#include <initializer_list>
#include <random>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "kernels/attention_targets.hpp"
#include "tests/kernels/formats.hpp"
#include "tests/kernels/made_attention.hpp"

namespace modalkv {
namespace {

// Each list into partials of its own, merged.
void expect_agrees(const MadeQueries& made, const std::vector<const MadeList*>& made_lists) {
  const Queries queries = made.queries();
  const std::int64_t rows = made.rows();
  const auto part = static_cast<std::size_t>(rows * (made.head_dim + 2));
  std::vector<PageList> lists;
  for (const MadeList* list : made_lists) lists.push_back(list->list());
  for (const AttentionTarget& target : attention_targets()) {
    SCOPED_TRACE(target.name);
    std::vector<float> partials(part * lists.size()), merged(part);
    for (std::size_t l = 0; l < lists.size(); ++l) {
      const std::span own = std::span(partials).subspan(l * part, part);
      clear_partials(own, rows, made.head_dim);
      target.attend(queries, lists[l], 0, lists[l].shape.kv_heads, own);
    }
    merge_partials(partials, static_cast<std::int64_t>(lists.size()), rows, made.head_dim, merged);
    ASSERT_NO_FATAL_FAILURE(expect_close(queries, lists, made.head_dim, merged));
  }
}

// Where the processor is known (tests/CMakeLists.txt), so is what it must run.
TEST(Attention, RunsTheFastestTargetOfTheProcessor) {
  const char* expected = std::getenv("MODALKV_EXPECT_ATTENTION");
  if (expected == nullptr) GTEST_SKIP() << "MODALKV_EXPECT_ATTENTION is not set";
  EXPECT_EQ(attention_target(), std::string_view(expected));
}

TEST(Attention, EveryFormatAndShape) {
  std::uint64_t seed = 1;
  for (const PageShape& shape : test_shapes()) {
    SCOPED_TRACE(describe(shape) + ", seed " + std::to_string(seed));
    const MadeList list = make_list(shape, 2 * shape.tokens + 7, seed);
    const MadeQueries queries =
        make_queries(1, shape.kv_heads * static_cast<int>(1 + seed % 7), shape.head_dim, 1, seed);
    ASSERT_NO_FATAL_FAILURE(expect_agrees(queries, {&list}));
    ++seed;
  }
}

TEST(Attention, FlatAndPeakedWithAndWithoutOutliers) {
  for (const ElementFormat& format :
       {fp16(), int8_token_head(), int4_token_head(), int2_grouped(32), nvfp4()})
    for (const Data data : {Data::normal, Data::outliers, Data::one_sided})
      for (const float size : {0.0f, 0.5f, 4.0f}) {
        SCOPED_TRACE(describe(format));
        const PageShape shape{64, 2, 128, both(format)};
        const MadeList list = make_list(shape, 500, 3, data);
        ASSERT_NO_FATAL_FAILURE(expect_agrees(make_queries(1, 14, 128, size, 4), {&list}));
      }
}

// Flat to peaked, with a few channels that are larger than the others or not.
void expect_any_length_agrees(std::initializer_list<Tokens> lengths) {
  for (const ElementFormat& format : {fp16(), int8_token_head(), int4_token_head(),
                                      int2_grouped(64), per_channel(int4_token_head()), mxfp4()})
    for (const Tokens tokens : lengths) {
      const PageShape shape{64, 1, 128, both(format)};
      const Data data = tokens == 1000 ? Data::outliers : Data::normal;
      const MadeList some = make_list(shape, std::min<Tokens>(tokens, 2048), 7, data);
      MadeList list{shape, tokens};
      for (Tokens t = 0; t < tokens; t += shape.tokens)  // pages again and again
        list.addresses.push_back(
            some.addresses[static_cast<std::size_t>(t / 64) % some.addresses.size()]);
      for (const float size : {0.5f, 4.0f}) {
        SCOPED_TRACE(describe(format) + ", " + std::to_string(tokens) + " tokens");
        ASSERT_NO_FATAL_FAILURE(expect_agrees(make_queries(1, 2, 128, size, 8), {&list}));
      }
    }
}

TEST(Attention, AnyLengthStaysWithinItsBound) {
  expect_any_length_agrees({64, 1000, 4096});
}

TEST(AttentionNightly, LongSequencesStayWithinTheirBound) {
  expect_any_length_agrees({16'384, 65'536});
}

TEST(Attention, RotatedKeysMeetQueriesRotatedAlike) {
  for (const auto& [dims, order] : {std::pair{64, 16}, {64, 64}, {96, 32}, {128, 128}, {256, 64}})
    for (const ElementFormat& key :
         {int4_token_head(), per_channel(int8_token_head()), fp8_e4m3(), fp16()}) {
      SCOPED_TRACE(describe(key) + ", order " + std::to_string(order));
      const PageShape shape{32, 2, dims, {key, int8_token_head(), order}};
      const MadeList list = make_list(shape, 100, 1, Data::outliers);
      ASSERT_NO_FATAL_FAILURE(expect_agrees(make_queries(2, 6, dims, 1, 2), {&list}));
    }
}

// Text, scattered text, an image with its grid of m-RoPE positions, and an image after a far jump.
TEST(Attention, AKnownBiasComesBack) {
  const RopeSections plain{}, multimodal{{16, 24, 24}};
  std::vector<std::int32_t> consecutive, scattered, grid, jump;
  std::mt19937_64 random(3);
  for (std::int32_t t = 0; t < 300; ++t) {
    consecutive.push_back(100'000 + t);
    scattered.push_back(static_cast<std::int32_t>(random() % 1'000'000));
    for (const std::int32_t position : {40, 40 + t / 23, 40 + t % 23}) grid.push_back(position);
    const std::int32_t base = t < 150 ? 7 : 90'000;
    for (const std::int32_t position : {base, base + t % 150 / 13, base + t % 13})
      jump.push_back(position);
  }
  for (const auto& [sections, positions] :
       {std::pair{plain, consecutive}, {plain, scattered}, {multimodal, grid}, {multimodal, jump}})
    for (const KvFormat& format :
         {both(int4_token_head()), KvFormat{per_channel(int4_token_head()), nvfp4(), 32},
          KvFormat{int8_token_head(), int8_token_head(), 128}, both(fp8_e4m3()), both(bf16())})
      for (const Tokens page_tokens : {16, 48, 128}) {
        SCOPED_TRACE(describe({page_tokens, 2, 128, format}) + " at " +
                     std::to_string(positions[5]));
        const PageShape shape{page_tokens, 2, 128, format};
        const MadeBias bias(shape, sections, positions, 1);
        const MadeList list = make_biased_list(shape, 300, bias, 5);
        ASSERT_NO_FATAL_FAILURE(expect_agrees(make_queries(1, 14, 128, 0.1f, 6), {&list}));
      }
}

TEST(Attention, AnyMixOfListsMergesExactly) {
  const MadeList text = make_list({16, 2, 128, both(fp16())}, 37, 1);
  const MadeList image = make_list({64, 2, 128, both(int4_token_head())}, 300, 2);
  const MadeList frozen =
      make_list({32, 2, 128, {per_channel(int2_grouped(0)), int2_grouped(32)}}, 64, 3);
  const MadeList nothing = make_list({16, 2, 128, both(bf16())}, 0, 4);
  const MadeQueries queries = make_queries(3, 8, 128, 2, 5, NumberFormat::fp16);
  expect_agrees(queries, {&text, &image, &frozen, &nothing});
  expect_agrees(queries, {&nothing, &nothing});
}

TEST(Attention, ChunksSeeWhatIsBeforeThem) {
  MadeList list = make_list({32, 2, 64, both(int8_token_head())}, 150, 1);
  for (std::int32_t t = 0; t < 150; ++t) list.positions.push_back(3 * t);  // scattered
  for (const std::int32_t window : {0, 1, 40, 1000}) {
    MadeQueries queries = make_queries(40, 4, 64, 1, 2);
    queries.window = window;
    for (std::int32_t t = 0; t < 40; ++t) queries.positions.push_back(12 * t - 18);
    SCOPED_TRACE("window " + std::to_string(window));
    ASSERT_NO_FATAL_FAILURE(expect_agrees(queries, {&list}));
  }
}

TEST(Attention, HiddenTokensAreNotSeen) {
  MadeList list = make_list({48, 1, 96, both(int4_grouped(32))}, 200, 1);
  std::mt19937_64 random(9);
  for (int word = 0; word < 4; ++word) list.hidden.push_back(random() | 0xffff'0000);
  expect_agrees(make_queries(2, 4, 96, 1, 2), {&list});
  list.hidden.assign(4, ~std::uint64_t{0});
  expect_agrees(make_queries(2, 4, 96, 1, 2), {&list});
}

// Work may be split over heads and over pages.
TEST(Attention, PiecesOfTheWorkAddUp) {
  const PageShape shape{16, 4, 64, both(int4_token_head())};
  const MadeList list = make_list(shape, 100, 1);
  const MadeQueries queries = make_queries(2, 8, 64, 1, 2);
  const std::int64_t rows = queries.rows();
  const auto part = static_cast<std::size_t>(rows * 66);
  std::vector<float> whole(part), pieces(2 * part), merged(part);
  clear_partials(whole, rows, 64);
  attend(queries.queries(), list.list(), 0, 4, whole);
  for (int p = 0; p < 2; ++p) {
    PageList half = list.list();
    half.pages = p == 0 ? half.pages.first(3) : half.pages.subspan(3);
    half.tokens = p == 0 ? 48 : 52;
    const std::span own = std::span(pieces).subspan(static_cast<std::size_t>(p) * part, part);
    clear_partials(own, rows, 64);
    for (int head = 0; head < 4; ++head) attend(queries.queries(), half, head, head + 1, own);
  }
  merge_partials(pieces, 2, rows, 64, merged);
  std::vector<float> a(static_cast<std::size_t>(rows * 64)), b = a;
  finish_partials(whole, rows, 64, a, {});
  finish_partials(merged, rows, 64, b, {});
  for (std::size_t i = 0; i < a.size(); ++i) ASSERT_NEAR(a[i], b[i], kIntegerAttentionError);
}

TEST(Attention, LargeLogitsNeitherOverflowNorVanish) {
  const MadeList list = make_list({16, 1, 64, both(fp16())}, 64, 1, Data::huge);
  expect_agrees(make_queries(1, 2, 64, 100, 2), {&list});
}

}  // namespace
}  // namespace modalkv
