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

// Each list into partials of its own, merged. Returns the largest errors of all targets as shares
// of those stated.
AttentionError expect_agrees(const MadeQueries& made,
                             const std::vector<const MadeList*>& made_lists) {
  const Queries queries = made.queries();
  const std::int64_t rows = made.rows();
  const auto part = static_cast<std::size_t>(rows * (made.head_dim + 2));
  std::vector<PageList> lists;
  for (const MadeList* list : made_lists) lists.push_back(list->list());
  const ExpectedAttention expected(queries, lists, made.head_dim);
  AttentionError worst;
  for (const AttentionTarget& target : attention_targets()) {
    SCOPED_TRACE(target.name);
    std::vector<float> partials(part * lists.size()), merged(part);
    for (std::size_t l = 0; l < lists.size(); ++l) {
      const std::span own = std::span(partials).subspan(l * part, part);
      clear_partials(own, rows, made.head_dim);
      target.attend(queries, lists[l], 0, lists[l].shape.kv_heads, own);
    }
    merge_partials(partials, static_cast<std::int64_t>(lists.size()), rows, made.head_dim, merged);
    const AttentionError shares = expected.check(merged);
    worst = {std::max(worst.output, shares.output),
             std::max(worst.log_sum_exp, shares.log_sum_exp)};
  }
  return worst;
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
    expect_agrees(queries, {&list});
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
        expect_agrees(make_queries(1, 14, 128, size, 4), {&list});
      }
}

// Flat to peaked, with a few channels that are larger than the others or not. Returns the largest
// error of log-sum-exp of 16-bit numbers, as a share of the one stated.
double expect_any_length_agrees(std::initializer_list<Tokens> lengths) {
  double worst = 0;
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
        const double share = expect_agrees(make_queries(1, 2, 128, size, 8), {&list}).log_sum_exp;
        if (format == fp16()) worst = std::max(worst, share);
      }
    }
  return worst;
}

TEST(Attention, AnyLengthStaysWithinItsBound) {
  expect_any_length_agrees({64, 1000, 4096});
}

TEST(AttentionNightly, LongSequencesStayWithinTheirBound) {
  EXPECT_GT(expect_any_length_agrees({16'384, 65'536}), 0.1) << "the statement is tight";
}

TEST(Attention, RotatedKeysMeetQueriesRotatedAlike) {
  std::uint64_t seed = 1;
  for (const int dims : {64, 96, 128, 256})
    for (const int order : {16, 32, 64, 128})
      for (const ElementFormat& key : {int4_token_head(), per_channel(int8_token_head()),
                                       int2_grouped(32), nvfp4(), fp8_e4m3(), fp16()}) {
        const PageShape shape{32, 1, dims, {key, int8_token_head(), order}};
        if (dims % order != 0) continue;
        for (const Data data : {Data::outliers, Data::one_sided}) {
          SCOPED_TRACE(describe(shape) + ", order " + std::to_string(order) + ", seed " +
                       std::to_string(seed));
          const MadeList list = make_list(shape, seed % 3 == 0 ? 1 : 100, seed, data);
          expect_agrees(make_queries(1, 4, dims, seed % 2 == 0 ? 0.5f : 4, seed + 1000), {&list});
          ++seed;
        }
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
        expect_agrees(make_queries(1, 14, 128, 0.1f, 6), {&list});
      }
}

// However large the bias, at any position and in any window.
TEST(Attention, ALargeKnownBiasAddsNoMoreThanStated) {
  std::mt19937_64 random(4);
  for (const int dims : {64, 256})
    for (const RopeSections& sections :
         {RopeSections{}, RopeSections{{dims / 8, 3 * dims / 16, 3 * dims / 16}}})
      for (const KvFormat& format :
           {both(int4_token_head()), KvFormat{fp8_e4m3(), fp8_e4m3(), 32}, both(int2_grouped(32))})
        for (const float size : {0.05f, 0.5f, 4.0f}) {
          const PageShape shape{48, 1, dims, format};
          const auto first = static_cast<std::int32_t>(random() % (1 << 17));
          std::vector<std::int32_t> positions;
          for (std::int32_t t = 0; t < 150 * sections.axes(); ++t)
            positions.push_back(size < 1 ? first + t / sections.axes()
                                         : static_cast<std::int32_t>(random() % (1 << 17)));
          MadeBias bias(shape, sections, positions, random());
          for (float& element : bias.elements) element *= 30;  // 300 on average
          SCOPED_TRACE(describe(shape) + ", size " + std::to_string(size) + " from " +
                       std::to_string(first));
          MadeList list = make_biased_list(shape, 150, bias, random());
          MadeQueries queries = make_queries(3, 4, dims, size, random());
          expect_agrees(queries, {&list});
          for (std::int32_t t = 0; t < 150; ++t) list.positions.push_back(t);
          queries.positions = {5, 80, 149};
          queries.window = 7;
          expect_agrees(queries, {&list});
        }
}

// Some input comes within a tenth of every number of the statement. kFloatAttentionError is for
// long sums: see the nightly test.
TEST(Attention, TheErrorStatementIsTight) {
  double integer_output = 0, integer_logit = 0, float_logit = 0, bias_logit = 0;
  for (std::uint64_t seed = 1; seed <= 10; ++seed)
    for (const int order : {0, 64}) {
      const auto list = [&](const ElementFormat& format, Tokens tokens, Data data) {
        return make_list({32, 1, 64, {format, format, order}}, tokens, seed, data);
      };
      const auto shares = [&](const MadeList& made) {
        return expect_agrees(make_queries(1, 8, 64, 4, seed + 1000), {&made});
      };
      const auto note = [](double& most, double share) { most = std::max(most, share); };
      note(integer_output, shares(list(int4_token_head(), 400, Data::normal)).output);
      note(integer_logit, shares(list(int4_token_head(), 20, Data::one_sided)).log_sum_exp);
      const MadeList huge = make_list({32, 1, 256, both(fp16())}, 200, seed, Data::huge);
      note(float_logit,
           expect_agrees(make_queries(1, 8, 256, 4, seed), {&huge}).log_sum_exp);  // like a key
      std::vector<std::int32_t> positions;
      for (std::int32_t t = 0; t < 60; ++t) positions.push_back(100'000 + 7 * t);
      const PageShape shape{32, 1, 64, {fp8_e4m3(), fp8_e4m3(), order}};
      MadeBias bias(shape, {}, positions, seed);
      for (float& element : bias.elements) element *= 30;
      note(bias_logit, shares(make_biased_list(shape, 60, bias, seed)).log_sum_exp);
    }
  for (const double share : {integer_output, integer_logit, float_logit, bias_logit})
    EXPECT_GT(share, 0.1);
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
    expect_agrees(queries, {&list});
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
