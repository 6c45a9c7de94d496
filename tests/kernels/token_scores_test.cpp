// Scores against probabilities in double precision over the decoded keys.
#include "kernels/token_scores.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>

#include "modalkv/op.hpp"
#include "tests/kernels/formats.hpp"
#include "tests/kernels/made_lists.hpp"

namespace modalkv {
namespace {

using Lists = std::vector<const MadeList*>;
using Scores = std::vector<float>;  // of all tokens, one list after another

std::vector<reference::DecodedList> decoded(const Lists& lists) {
  std::vector<reference::DecodedList> all;
  for (const MadeList* list : lists) all.push_back(reference::decode_list(list->list()));
  return all;
}

Scores add_scores(const MadeQueries& probes, const Lists& lists, std::span<const float> partials,
                  Scores scores = {}) {
  Tokens tokens = 0;
  for (const MadeList* list : lists) tokens += list->tokens;
  scores.resize(static_cast<std::size_t>(tokens));
  std::size_t first = 0;
  for (const MadeList* list : lists) {
    std::vector<float> scratch(static_cast<std::size_t>(score_scratch_bytes(list->shape) / 4), NAN);
    const auto count = static_cast<std::size_t>(list->tokens);
    add_token_scores(probes.queries(), list->list(), partials, scratch,
                     std::span(scores).subspan(first, count));
    first += count;
  }
  return scores;
}

// Maxima and sums that say no more than a row's log-sum-exp, so that no kernel is needed for them.
std::vector<float> exact_partials(const reference::Attention& attention, int head_dim) {
  std::vector<float> partials(attention.log_sum_exp.size() * static_cast<std::size_t>(head_dim + 2),
                              NAN);
  for (std::size_t row = 0; row < attention.log_sum_exp.size(); ++row) {
    const double log_sum = attention.log_sum_exp[row];
    const PartialRow partial = partial_row(partials, static_cast<std::int64_t>(row), head_dim);
    *partial.maximum = static_cast<float>(log_sum);
    *partial.sum =
        std::isinf(log_sum) ? 0 : static_cast<float>(std::exp(log_sum - double{*partial.maximum}));
  }
  return partials;
}

// What attend() makes of the lists, merged.
std::vector<float> attended_partials(const MadeQueries& probes, const Lists& lists) {
  const auto part = static_cast<std::size_t>(partial_bytes(probes.rows(), probes.head_dim) / 4);
  std::vector<float> parts(part * lists.size()), merged(part);
  for (std::size_t l = 0; l < lists.size(); ++l) {
    const std::span own = std::span(parts).subspan(l * part, part);
    clear_partials(own, probes.rows(), probes.head_dim);
    attend(probes.queries(), lists[l]->list(), 0, lists[l]->shape.kv_heads, own);
  }
  merge_partials(parts, static_cast<std::int64_t>(lists.size()), probes.rows(), probes.head_dim,
                 merged);
  return merged;
}

void expect_agrees(const MadeQueries& made, const Lists& lists) {
  const Queries probes = made.queries();
  const auto all = decoded(lists);
  const auto attention = reference::attention(probes, all, made.head_dim);
  const Scores found = add_scores(made, lists, exact_partials(attention, made.head_dim));
  std::size_t at = 0;
  for (const reference::DecodedList& list : all)
    for (Tokens token = 0; token < list.tokens; ++token, ++at) {
      double mass = 0, allowed = 0;
      int rows = 0;
      for (Tokens probe = 0; probe < probes.tokens; ++probe)
        for (int head = 0; head < probes.heads; ++head) {
          if (!reference::sees(probes, probe, list, token)) continue;
          ++rows;
          const auto row = static_cast<std::size_t>(probe * probes.heads + head);
          const double probability = attention.probabilities[row * found.size() + at];
          const auto terms =
              reference::logit(reference::query_row(probes, probe, head, made.head_dim), list,
                               head / (probes.heads / list.kv_heads), token);
          mass += probability;
          allowed += probability * 2e-6 * (1 + terms.magnitude);
        }
      const double expected = rows > 0 ? mass / rows : 0;
      const double summed = static_cast<double>(rows) * 0x1p-24 * expected;
      ASSERT_NEAR(found[at], expected, allowed / std::max(rows, 1) + summed + 1e-37) << at;
      if (rows == 0) {
        ASSERT_EQ(found[at], 0.0f) << at;
      }
    }
}

TEST(TokenScores, EveryFormatAndShape) {
  std::uint64_t seed = 1;
  for (const PageShape& shape : test_shapes()) {
    SCOPED_TRACE(describe(shape) + ", seed " + std::to_string(seed));
    const MadeList list = make_list(shape, shape.tokens + 7, seed);
    const auto group = static_cast<int>(1 + seed % 4);
    ASSERT_NO_FATAL_FAILURE(
        expect_agrees(make_queries(2, shape.kv_heads * group, shape.head_dim, 2, seed,
                                   seed % 2 == 0 ? NumberFormat::bf16 : NumberFormat::fp16),
                      {&list}));
    ++seed;
  }
}

TEST(TokenScores, FlatAndPeakedWithAndWithoutOutliers) {
  for (const Data data : {Data::normal, Data::outliers, Data::huge, Data::zeros})
    for (const float size : {0.0f, 0.5f, 4.0f}) {
      const MadeList list = make_list({64, 2, 128, both(fp16())}, 200, 3, data);
      ASSERT_NO_FATAL_FAILURE(expect_agrees(make_queries(2, 6, 128, size, 4), {&list}));
    }
}

// Probes and tokens anywhere, windows, hidden tokens, several lists.
struct RandomCase {
  std::vector<MadeList> lists;
  MadeQueries probes;

  Lists pointers() const {
    Lists all;
    for (const MadeList& list : lists) all.push_back(&list);
    return all;
  }
};

RandomCase random_case(std::uint64_t seed) {
  std::mt19937_64 random(seed);
  const auto below = [&](int n) {
    return static_cast<std::int32_t>(random() % static_cast<std::uint64_t>(n));
  };
  const std::vector<ElementFormat> formats = test_formats();
  RandomCase made{{}, make_queries(1 + below(6), 4, 64, 2, seed)};
  for (Tokens probe = 0; probe < made.probes.tokens; ++probe)
    made.probes.positions.push_back(below(300) - 20);  // some see nothing
  made.probes.window = below(2) * below(120);
  for (int lists = 1 + below(3); lists > 0; --lists) {
    const auto& format = formats[static_cast<std::size_t>(below(static_cast<int>(formats.size())))];
    MadeList list = make_list({16 * (1 + below(3)), 2, 64, both(format)}, 1 + below(100), random());
    for (Tokens token = 0; token < list.tokens; ++token) list.positions.push_back(below(250));
    if (below(2) == 0)
      for (Tokens word = 0; word < divide_up(list.tokens, 64); ++word)
        list.hidden.push_back(random() & random());
    made.lists.push_back(std::move(list));
  }
  return made;
}

TEST(TokenScores, AnyPositionsWindowsHiddenTokensAndLists) {
  for (std::uint64_t seed = 1; seed <= 40; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    const RandomCase made = random_case(seed);
    ASSERT_NO_FATAL_FAILURE(expect_agrees(made.probes, made.pointers()));
  }
}

// A row gives away exactly one: scores times the rows that they are means over are as many as the
// rows that see anything.
TEST(TokenScores, ARowsMassIsOneOverAllLists) {
  for (std::uint64_t seed = 1; seed <= 40; ++seed) {
    const RandomCase made = random_case(seed);
    const Queries probes = made.probes.queries();
    const auto all = decoded(made.pointers());
    const auto attention = reference::attention(probes, all, 64);
    const auto total = [&](const std::vector<float>& partials) {
      const Scores scores = add_scores(made.probes, made.pointers(), partials);
      double sum = 0;
      std::size_t at = 0;
      for (const auto& list : all)
        for (Tokens token = 0; token < list.tokens; ++token, ++at)
          for (Tokens probe = 0; probe < probes.tokens; ++probe)
            if (reference::sees(probes, probe, list, token))
              sum += double{scores[at]} * probes.heads;
      return sum;
    };
    const auto rows = static_cast<double>(
        std::count_if(attention.log_sum_exp.begin(), attention.log_sum_exp.end(),
                      [](double log_sum) { return std::isfinite(log_sum); }));
    EXPECT_NEAR(total(exact_partials(attention, 64)), rows, 1e-4) << "seed " << seed;
    // Within what attention may err by.
    EXPECT_NEAR(total(attended_partials(made.probes, made.pointers())), rows, 0.015 * rows)
        << "seed " << seed;
  }
}

// Flat attention, worked out by hand: the probe at position p sees p + 1 tokens and gives each of
// them 1 / (p + 1), so token t gets the mean of that over the probes from t on.
TEST(TokenScores, EarlyTokensAreNotFavoured) {
  constexpr Tokens kTokens = 20;
  MadeList list = make_list({16, 1, 64, both(fp16())}, kTokens, 1);
  MadeQueries probes = make_queries(kTokens, 2, 64, 0, 2);
  for (std::int32_t t = 0; t < kTokens; ++t) {
    list.positions.push_back(t);
    probes.positions.push_back(t);
  }
  Scores scores = add_scores(probes, {&list}, attended_partials(probes, {&list}));
  for (Tokens t = 0; t < kTokens; ++t) {
    double mass = 0;
    for (Tokens p = t; p < kTokens; ++p) mass += 1.0 / static_cast<double>(p + 1);
    EXPECT_NEAR(scores[static_cast<std::size_t>(t)], mass / static_cast<double>(kTokens - t), 1e-6);
  }
  // With a window of one, each probe sees its own token and nobody else does.
  probes.window = 1;
  scores = add_scores(probes, {&list}, attended_partials(probes, {&list}));
  for (const float score : scores) EXPECT_NEAR(score, 1, 1e-6);
}

TEST(TokenScores, AddsToWhatIsThereAndLeavesHiddenTokensAlone) {
  MadeList list = make_list({16, 1, 64, both(int4_token_head())}, 70, 1);
  list.hidden = {0xff, 1};
  const MadeQueries probes = make_queries(1, 2, 64, 1, 2);
  const auto partials = attended_partials(probes, {&list});
  const Scores once = add_scores(probes, {&list}, partials);
  EXPECT_NEAR(std::accumulate(once.begin(), once.end(), 0.0), 1, 0.015);
  const Scores more = add_scores(probes, {&list}, partials, Scores(70, 0.5f));
  for (std::size_t t = 0; t < 70; ++t) {
    const bool hidden = t < 8 || t == 64;
    EXPECT_EQ(once[t] == 0, hidden) << t;
    EXPECT_NEAR(more[t], 0.5f + once[t], 1e-6) << t;
  }
}

}  // namespace
}  // namespace modalkv
