// Attention over pages against plain attention in double precision over the decoded values.
#include "kernels/attention.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <vector>

#include "tests/kernels/formats.hpp"
#include "tests/kernels/made_pages.hpp"

namespace modalkv {
namespace {

constexpr double kAllowedError = 1e-4;

// A list of pages, and what it decodes to.
struct MadeList {
  PageShape shape;
  Tokens tokens;
  std::vector<Page> pages{};
  std::vector<const std::byte*> addresses{};
  std::vector<float> keys{}, values{};  // [tokens, kv_heads, head_dim]
  std::vector<std::int32_t> positions{};
  std::vector<std::uint64_t> hidden{};

  PageList list() const { return {shape, {}, addresses, tokens, positions, hidden}; }
  bool is_hidden(Tokens token) const {
    return !hidden.empty() && (hidden[static_cast<std::size_t>(token / 64)] >> token % 64 & 1) != 0;
  }
};

MadeList make_list(const PageShape& shape, Tokens tokens, std::uint64_t seed,
                   Data data = Data::normal) {
  MadeList made{shape, tokens};
  for (Tokens begin = 0; begin < tokens; begin += shape.tokens) {
    const Tokens used = std::min(shape.tokens, tokens - begin);
    const Tensor keys(shape, NumberFormat::fp16, data, seed++);
    const Tensor values(shape, NumberFormat::fp16, data, seed++);
    made.pages.push_back(encode(shape, keys, values, used).page);
    for (const bool side : {false, true}) {
      const auto decoded = decode(shape, made.pages.back(), side, used);
      auto& all = side ? made.values : made.keys;
      all.insert(all.end(), decoded.begin(), decoded.end());
    }
  }
  for (const Page& page : made.pages) made.addresses.push_back(page.data());
  return made;
}

struct MadeQueries {
  Tokens tokens;
  int heads, head_dim;
  NumberFormat number;
  std::vector<std::uint16_t> elements{};
  std::vector<std::int32_t> positions{};
  std::int32_t window = 0;

  std::int64_t rows() const { return tokens * heads; }
  std::int64_t token_stride() const { return std::int64_t{heads} * head_dim + 8; }
  Queries queries() const {
    return {elements.data(),
            number,
            tokens,
            heads,
            token_stride(),
            head_dim,
            1 / std::sqrt(static_cast<float>(head_dim)),
            positions,
            window};
  }
  double at(Tokens token, int head, int dim) const {
    const std::uint16_t element =
        elements[static_cast<std::size_t>(token * token_stride() + head * head_dim + dim)];
    return number == NumberFormat::bf16 ? from_bf16(element) : from_fp16(element);
  }
};

MadeQueries make_queries(Tokens tokens, int heads, int head_dim, float size, std::uint64_t seed,
                         NumberFormat number = NumberFormat::bf16) {
  MadeQueries made{tokens, heads, head_dim, number};
  made.elements.resize(static_cast<std::size_t>(tokens * made.token_stride()));
  std::mt19937_64 random(seed);
  std::normal_distribution<float> normal;
  for (std::uint16_t& element : made.elements)
    element = number == NumberFormat::bf16 ? to_bf16(size * normal(random))
                                           : to_fp16(size * normal(random));
  return made;
}

struct Reference {
  std::vector<double> outputs, log_sum_exp;
};

// Every token of every list, one by one.
Reference reference(const MadeQueries& queries, const std::vector<const MadeList*>& lists) {
  Reference result;
  for (Tokens token = 0; token < queries.tokens; ++token)
    for (int head = 0; head < queries.heads; ++head) {
      std::vector<double> logits;
      std::vector<const float*> rows;
      for (const MadeList* list : lists) {
        const int kv_head = head / (queries.heads / list->shape.kv_heads);
        for (Tokens t = 0; t < list->tokens; ++t) {
          if (list->is_hidden(t)) continue;
          if (!queries.positions.empty()) {
            const auto last = queries.positions[static_cast<std::size_t>(token)];
            const auto position = list->positions[static_cast<std::size_t>(t)];
            if (position > last) continue;
            if (queries.window > 0 && position <= last - queries.window) continue;
          }
          const auto at =
              static_cast<std::size_t>((t * list->shape.kv_heads + kv_head) * queries.head_dim);
          double logit = 0;
          for (int d = 0; d < queries.head_dim; ++d)
            logit += queries.at(token, head, d) * list->keys[at + static_cast<std::size_t>(d)];
          logits.push_back(logit / std::sqrt(static_cast<double>(queries.head_dim)));
          rows.push_back(&list->values[at]);
        }
      }
      double maximum = -INFINITY, sum = 0;
      for (const double logit : logits) maximum = std::max(maximum, logit);
      std::vector<double> output(static_cast<std::size_t>(queries.head_dim));
      for (std::size_t t = 0; t < logits.size(); ++t) {
        const double weight = std::exp(logits[t] - maximum);
        sum += weight;
        for (std::size_t d = 0; d < output.size(); ++d) output[d] += weight * rows[t][d];
      }
      for (double value : output) result.outputs.push_back(logits.empty() ? 0 : value / sum);
      result.log_sum_exp.push_back(maximum + std::log(sum));
    }
  return result;
}

// Each list into partials of its own, merged.
void expect_agrees(const MadeQueries& queries, const std::vector<const MadeList*>& lists) {
  const std::int64_t rows = queries.rows();
  const auto part = static_cast<std::size_t>(rows * (queries.head_dim + 2));
  std::vector<float> partials(part * lists.size()), merged(part);
  for (std::size_t l = 0; l < lists.size(); ++l) {
    const std::span own = std::span(partials).subspan(l * part, part);
    clear_partials(own, rows, queries.head_dim);
    attend(queries.queries(), lists[l]->list(), 0, lists[l]->shape.kv_heads, own);
  }
  merge_partials(partials, static_cast<std::int64_t>(lists.size()), rows, queries.head_dim, merged);
  std::vector<float> outputs(static_cast<std::size_t>(rows * queries.head_dim)),
      log_sum_exp(static_cast<std::size_t>(rows));
  finish_partials(merged, rows, queries.head_dim, outputs, log_sum_exp);

  const Reference expected = reference(queries, lists);
  for (std::int64_t row = 0; row < rows; ++row) {
    double error = 0, size = 0;
    for (int d = 0; d < queries.head_dim; ++d) {
      const auto i = static_cast<std::size_t>(row * queries.head_dim + d);
      error += std::pow(outputs[i] - expected.outputs[i], 2);
      size += std::pow(expected.outputs[i], 2);
    }
    ASSERT_LE(std::sqrt(error), kAllowedError * std::sqrt(size) + 1e-30) << "row " << row;
    const double lse = expected.log_sum_exp[static_cast<std::size_t>(row)];
    const float found = log_sum_exp[static_cast<std::size_t>(row)];
    if (std::isinf(lse)) {
      ASSERT_EQ(found, -INFINITY);
    } else {
      ASSERT_NEAR(found, lse, 1e-4 * (1 + std::abs(lse)));
    }
  }
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
  for (std::size_t i = 0; i < a.size(); ++i) ASSERT_NEAR(a[i], b[i], 1e-5);
}

TEST(Attention, LargeLogitsNeitherOverflowNorVanish) {
  const MadeList list = make_list({16, 1, 64, both(fp16())}, 64, 1, Data::huge);
  expect_agrees(make_queries(1, 2, 64, 100, 2), {&list});
}

}  // namespace
}  // namespace modalkv
