// Attention over pages against plain attention in double precision over the decoded values, on
// every kernel that this processor can run.
#include "kernels/attention.hpp"

#include <gtest/gtest.h>

#include <cstdlib>
#include <vector>

#include "kernels/attention_targets.hpp"
#include "tests/kernels/formats.hpp"
#include "tests/kernels/made_attention.hpp"

namespace modalkv {
namespace {

// Each list into partials of its own, merged.
void expect_agrees(const MadeQueries& queries, const std::vector<const MadeList*>& lists) {
  const std::int64_t rows = queries.rows();
  const auto part = static_cast<std::size_t>(rows * (queries.head_dim + 2));
  for (const AttentionTarget& target : attention_targets()) {
    SCOPED_TRACE(target.name);
    std::vector<float> partials(part * lists.size()), merged(part);
    for (std::size_t l = 0; l < lists.size(); ++l) {
      const std::span own = std::span(partials).subspan(l * part, part);
      clear_partials(own, rows, queries.head_dim);
      target.attend(queries.queries(), lists[l]->list(), 0, lists[l]->shape.kv_heads, own);
    }
    merge_partials(partials, static_cast<std::int64_t>(lists.size()), rows, queries.head_dim,
                   merged);
    ASSERT_NO_FATAL_FAILURE(expect_close(queries, lists, merged));
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
