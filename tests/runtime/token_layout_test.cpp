#include "runtime/token_layout.hpp"

#include <gtest/gtest.h>

#include <map>
#include <random>

namespace modalkv {
namespace {

// Every token one by one: text, and the first of an image where it is promoted, into the own
// strand.
struct Naive {
  std::vector<Tokens> own;                  // token of each own index
  std::vector<std::vector<Tokens>> visual;  // tokens of each visual block

  Naive(const std::vector<Segment>& segments, Tokens tokens, Tokens page, bool promote) {
    Tokens token = 0;
    for (const Segment& segment : segments)
      for (Tokens i = 0; i < segment.tokens && token < tokens; ++i, ++token) {
        if (!is_visual(segment.token_class)) {
          own.push_back(token);
          continue;
        }
        if (promote && i == 0) own.push_back(token);
        if (i % page == 0) visual.emplace_back();
        visual.back().push_back(token);
      }
    for (; token < tokens; ++token) own.push_back(token);  // generated
  }
};

TEST(TokenLayout, IsWhatCountingTokenByTokenGives) {
  for (std::uint64_t seed = 1; seed <= 300; ++seed) {
    SCOPED_TRACE(seed);
    std::mt19937_64 random(seed);
    const auto between = [&](Tokens least, Tokens most) {
      return least + static_cast<Tokens>(random() % static_cast<std::uint64_t>(most - least + 1));
    };
    std::vector<Segment> segments;
    for (Tokens count = between(0, 5); count > 0; --count)
      segments.push_back(
          {random() % 2 == 0 ? TokenClass::text : TokenClass::image, between(1, 200)});
    const bool promote = random() % 2 == 0;
    const TokenLayout layout(segments, 16, 64, promote);
    const Tokens end = between(1, 600), begin = between(0, end - 1);
    const Naive naive(segments, end, 64, promote), before(segments, begin, 64, promote);

    EXPECT_EQ(layout.own_tokens(end), static_cast<Tokens>(naive.own.size()));
    EXPECT_EQ(layout.visual_blocks(end), static_cast<Tokens>(naive.visual.size()));
    std::vector<std::int32_t> positions(naive.own.size());
    layout.own_positions(0, positions);
    for (std::size_t i = 0; i < positions.size(); ++i) {
      ASSERT_EQ(positions[i], naive.own[i]);
      ASSERT_EQ(layout.token_of_own(static_cast<Tokens>(i)), naive.own[i]);
    }
    for (std::size_t block = 0; block < naive.visual.size(); ++block)
      EXPECT_EQ(layout.visual_first_token(static_cast<Tokens>(block)), naive.visual[block].front());

    // The pieces of [begin, end) are exactly its tokens, each where it belongs.
    auto own = static_cast<Tokens>(before.own.size());
    std::map<Tokens, Tokens> seen;
    layout.for_each_piece(begin, end, [&](const LayoutPiece& piece) {
      ASSERT_GT(piece.tokens, 0);
      for (Tokens i = 0; i < piece.tokens; ++i) {
        if (piece.strand == Strand::own) {
          ASSERT_EQ(piece.block * 16 + piece.at + i, own++);
          ASSERT_EQ(naive.own[static_cast<std::size_t>(own - 1)], piece.token + i);
        } else {
          const auto& tokens = naive.visual.at(static_cast<std::size_t>(piece.block));
          ASSERT_EQ(tokens.at(static_cast<std::size_t>(piece.at + i)), piece.token + i);
          ++seen[piece.token + i];
        }
      }
    });
    EXPECT_EQ(own, static_cast<Tokens>(naive.own.size()));
    for (const auto& block : naive.visual)
      for (const Tokens token : block) EXPECT_EQ(seen.count(token), token >= begin ? 1u : 0u);
  }
}

TEST(TokenLayout, HidesWhatIsKeptElsewhereAndWhatIsBehindAnImage) {
  const Segment prompt[] = {{TokenClass::text, 3}, {TokenClass::image, 70}};
  const TokenLayout promoting(prompt, 16, 64, true), plain(prompt, 16, 64, false);
  EXPECT_EQ(promoting.hidden(0), std::vector<std::uint64_t>{1});
  EXPECT_EQ(plain.hidden(0), std::vector<std::uint64_t>{0});
  EXPECT_EQ(promoting.hidden(1), std::vector<std::uint64_t>{~std::uint64_t{0} << 6});
  EXPECT_EQ(promoting.visual_tokens(1), 6);
}

}  // namespace
}  // namespace modalkv
