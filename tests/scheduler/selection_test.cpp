#include "scheduler/selection.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <random>
#include <string>

#include "modalkv/error.hpp"

namespace modalkv {
namespace {

constexpr Segment text(Tokens tokens) {
  return {TokenClass::text, tokens, {}};
}
constexpr Segment image(Tokens tokens) {
  return {TokenClass::image, tokens, {}};
}

PrecisionPolicy centric(Selection selection, double keep, Tokens pinned, Tokens window) {
  PrecisionPolicy policy;
  policy.selection = selection;
  policy.keep = keep;
  policy.text_low = both(int8_token_head());
  policy.visual_low = both(int4_grouped(128));
  policy.pinned_tokens = pinned;
  policy.window_tokens = window;
  return policy;
}

// h: high, t: text compressed, v: visual compressed.
std::string selected(const PrecisionPolicy& policy, const std::vector<Segment>& segments,
                     const std::vector<float>& scores) {
  std::string letters;
  for (const Permission permission : select_tokens(policy, segments, scores))
    letters += "htv"[static_cast<std::size_t>(permission)];
  return letters;
}

TEST(Selection, TheBudgetIsRoundedUp) {
  PrecisionPolicy policy;
  const struct {
    double keep;
    Tokens tokens, budget;
  } kCases[] = {{0.1, 0, 0},
                {0.1, 1, 1},
                {0.1, 10, 1},
                {0.1, 11, 2},
                {0.1, 30, 3},
                {0.1, 1000, 100},
                {0.1, 1'000'001, 100'001},
                {0.3, 10, 3},
                {0.7, 10, 7},
                {0, 50, 0},
                {1, 50, 50},
                {0.07, 100, 7},
                {0.25, 7, 2},
                {0.1, 10'000'000, 1'000'000}};
  for (const auto& [keep, tokens, budget] : kCases) {
    policy.keep = keep;
    EXPECT_EQ(high_precision_budget(policy, tokens), budget) << keep << " of " << tokens;
  }
}

TEST(Selection, PinsThenWindowThenTheClassThenTheOther) {
  const std::vector<Segment> segments = {text(3), image(4), text(3)};
  const std::vector<float> scores = {0.1f, 0.4f, 0.3f, 0.2f};
  const auto with_budget = [&](Selection selection, double tokens) {
    return selected(centric(selection, tokens / 10, 1, 2), segments, scores);
  };
  // First token, the image's first, the last two; then classes part ways.
  EXPECT_EQ(with_budget(Selection::text_centric, 1), "httvvvvttt");
  EXPECT_EQ(with_budget(Selection::text_centric, 2), "htthvvvttt");
  EXPECT_EQ(with_budget(Selection::text_centric, 3), "htthvvvtth");
  EXPECT_EQ(with_budget(Selection::text_centric, 4), "htthvvvthh");
  EXPECT_EQ(with_budget(Selection::text_centric, 5), "htthvvvhhh") << "text by recency";
  EXPECT_EQ(with_budget(Selection::text_centric, 6), "hthhvvvhhh");
  EXPECT_EQ(with_budget(Selection::text_centric, 7), "hhhhvvvhhh");
  EXPECT_EQ(with_budget(Selection::text_centric, 8), "hhhhhvvhhh") << "then images by score";
  EXPECT_EQ(with_budget(Selection::text_centric, 9), "hhhhhhvhhh");
  EXPECT_EQ(with_budget(Selection::image_centric, 4), "htthvvvthh");
  EXPECT_EQ(with_budget(Selection::image_centric, 5), "htthhvvthh") << "images by score";
  EXPECT_EQ(with_budget(Selection::image_centric, 6), "htthhhvthh");
  EXPECT_EQ(with_budget(Selection::image_centric, 7), "htthhhhthh");
  EXPECT_EQ(with_budget(Selection::image_centric, 8), "htthhhhhhh") << "then text by recency";
}

TEST(Selection, AllAndNoneIgnoreBudgetAndScores) {
  const std::vector<Segment> segments = {text(2), image(2), text(1)};
  PrecisionPolicy policy = centric(Selection::all, 0.1, 1, 1);
  EXPECT_EQ(selected(policy, segments, {1, 2}), "hhhhh");
  policy.selection = Selection::none;
  EXPECT_EQ(selected(policy, segments, {1, 2}), "ttvvt");
  policy.text_low.reset();
  EXPECT_EQ(selected(policy, segments, {1, 2}), "hhvvh") << "no format to compress text to";
}

TEST(Selection, EqualScoresPreferTheEarlierTokenAndAudioIsNotVisual) {
  const PrecisionPolicy policy = centric(Selection::image_centric, 0.5, 0, 0);
  EXPECT_EQ(selected(policy, {image(4)}, {1, 1, 1, 1}), "hhvv");
  EXPECT_EQ(selected(policy, {{TokenClass::audio, 2, {}}, {TokenClass::video, 2, {}}}, {1, 2}),
            "tthh");
}

TEST(Selection, RefusesAWrongNumberOfScores) {
  const std::vector<Segment> segments = {text(2), image(2)};
  EXPECT_THROW(select_tokens(centric(Selection::text_centric, 0.1, 0, 0), segments, {}), Error);
  const std::vector<float> three(3);
  EXPECT_THROW(select_tokens(centric(Selection::all, 1, 0, 0), segments, three), Error);
}

class RandomPrompt {
 public:
  explicit RandomPrompt(std::uint64_t seed) : random_(seed) {
    policy = centric(random_() % 2 ? Selection::text_centric : Selection::image_centric,
                     static_cast<double>(random_() % 11) / 10, static_cast<Tokens>(random_() % 4),
                     static_cast<Tokens>(random_() % 20));
    if (random_() % 5 == 0) policy.text_low.reset();
    if (random_() % 5 == 0) policy.visual_low.reset();
    for (std::uint64_t s = random_() % 6; s > 0; --s)
      segments.push_back({static_cast<TokenClass>(random_() % kTokenClasses),
                          static_cast<Tokens>(random_() % 40),
                          {}});
    for (const Segment& segment : segments) {
      const bool visual = is_visual(segment.token_class);
      (visual ? visual_tokens : text_tokens) += segment.tokens;
      images += visual && segment.tokens > 0;
    }
    for (Tokens i = 0; i < visual_tokens; ++i) scores.push_back(static_cast<float>(random_() % 8));
  }

  PrecisionPolicy policy;
  std::vector<Segment> segments;
  std::vector<float> scores;
  Tokens text_tokens = 0, visual_tokens = 0, images = 0;

 private:
  std::mt19937_64 random_;
};

TEST(Selection, CountsAndTokensAgreeUpToPinsAndWindow) {
  for (std::uint64_t seed = 1; seed <= 3000; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    const RandomPrompt prompt(seed);
    const PrecisionPolicy& policy = prompt.policy;
    const PermissionCounts counts =
        count_permissions(policy, prompt.text_tokens, prompt.visual_tokens);
    const std::string letters = selected(policy, prompt.segments, prompt.scores);
    const auto count = [&](char letter) {
      return static_cast<Tokens>(std::count(letters.begin(), letters.end(), letter));
    };
    const Tokens tokens = prompt.text_tokens + prompt.visual_tokens;
    ASSERT_EQ(static_cast<Tokens>(letters.size()), tokens);
    ASSERT_EQ(counts.high_only + counts.text_low + counts.visual_low, tokens);
    const Tokens slack = policy.pinned_tokens + policy.window_tokens + prompt.images;
    ASSERT_LE(std::abs(counts.text_low - count('t')), slack);
    ASSERT_LE(std::abs(counts.visual_low - count('v')), slack);
    if (policy.text_low && policy.visual_low) {
      const Tokens budget = high_precision_budget(policy, tokens);
      ASSERT_EQ(count('h'), budget);
      ASSERT_EQ(counts.high_only, budget);
    }
  }
}

// Whatever else decides, of two visual tokens outside pins and window the better one is not lower.
TEST(Selection, ABetterVisualTokenIsNeverWorseOff) {
  for (std::uint64_t seed = 1; seed <= 1000; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    RandomPrompt prompt(seed);
    prompt.policy.window_tokens = prompt.policy.pinned_tokens = 0;
    const std::string letters = selected(prompt.policy, prompt.segments, prompt.scores);
    std::vector<char> visual;
    std::vector<bool> first;
    std::size_t at = 0;
    for (const Segment& segment : prompt.segments)
      for (Tokens i = 0; i < segment.tokens; ++i, ++at)
        if (is_visual(segment.token_class)) {
          visual.push_back(letters[at]);
          first.push_back(i == 0);
        }
    for (std::size_t a = 0; a < visual.size(); ++a)
      for (std::size_t b = 0; b < visual.size(); ++b)
        if (!first[a] && !first[b] && prompt.scores[a] > prompt.scores[b]) {
          ASSERT_TRUE(visual[a] == 'h' || visual[b] == 'v');
        }
  }
}

}  // namespace
}  // namespace modalkv
