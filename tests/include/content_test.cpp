#include "modalkv/content.hpp"

#include <gtest/gtest.h>

#include <fstream>
#include <set>
#include <sstream>
#include <string>

namespace modalkv {
namespace {

std::string bytes_of(const std::string& hex) {
  std::string bytes;
  for (std::size_t i = 0; i + 1 < hex.size(); i += 2)
    bytes += static_cast<char>(std::stoi(hex.substr(i, 2), nullptr, 16));
  return bytes;
}

// The words of an id from its 32 bytes in order.
std::array<std::uint64_t, 4> words_of(const std::string& hex) {
  const std::string bytes = bytes_of(hex);
  std::array<std::uint64_t, 4> words{};
  for (std::size_t i = 0; i < 32; ++i)
    words[i / 8] |= std::uint64_t{static_cast<unsigned char>(bytes.at(i))} << (8 * (i % 8));
  return words;
}

TEST(Content, IdsAreThoseOfAnotherSha256) {
  std::ifstream file(MODALKV_SOURCE_DIR "/tests/include/golden/content_golden.txt");
  int tokens_lines = 0, prefix_lines = 0;
  for (std::string line; std::getline(file, line);) {
    SCOPED_TRACE(line);
    std::istringstream words(line);
    std::string kind, id;
    words >> kind >> id;
    if (kind == "tokens") {
      std::vector<std::int32_t> token_ids;
      for (std::int32_t token_id = 0; words >> token_id;) token_ids.push_back(token_id);
      EXPECT_EQ(content_of_tokens(token_ids).words, words_of(id));
      ++tokens_lines;
    } else if (kind == "prefix") {
      std::string before, content, tag;
      int token_class = 0;
      Segment segment;
      words >> before >> content >> token_class >> segment.tokens >> tag;
      ASSERT_TRUE(words);
      segment.content.words = words_of(content);
      segment.token_class = static_cast<TokenClass>(token_class);
      const auto chained = chain({words_of(before)}, segment, tag == "-" ? "" : bytes_of(tag));
      ASSERT_TRUE(chained);
      EXPECT_EQ(chained->words, words_of(id));
      ++prefix_lines;
    }
  }
  EXPECT_EQ(tokens_lines, 7);
  EXPECT_EQ(prefix_lines, 16);
}

TEST(Content, EveryBitOfEveryFieldChangesTheIdentity) {
  const Segment segment{TokenClass::image, 576, {{1, 2, 3, 4}}};
  const PrefixId before{{5, 6, 7, 8}};
  std::set<PrefixId> seen = {*chain(before, segment, "tag")};
  std::size_t changes = 1;
  const auto add = [&](const PrefixId& prefix, const Segment& changed, std::string_view tag) {
    seen.insert(chain(prefix, changed, tag).value());
    ++changes;
  };
  for (std::size_t bit = 0; bit < 256; ++bit) {
    PrefixId other = before;
    other.words[bit / 64] ^= std::uint64_t{1} << bit % 64;
    add(other, segment, "tag");
    Segment changed = segment;
    changed.content.words[bit / 64] ^= std::uint64_t{1} << bit % 64;
    add(before, changed, "tag");
  }
  for (std::size_t bit = 0; bit < 63; ++bit)
    add(before, {segment.token_class, segment.tokens ^ (Tokens{1} << bit), segment.content}, "tag");
  for (const TokenClass other : {TokenClass::text, TokenClass::video, TokenClass::audio})
    add(before, {other, segment.tokens, segment.content}, "tag");
  for (const std::string_view tag : {"", "t", "tag ", "Tag"}) add(before, segment, tag);
  add(before, segment, std::string_view("tag\0", 4));
  EXPECT_EQ(seen.size(), changes);
}

TEST(Content, AnIdentityDependsOnAllThatComesBefore) {
  const auto segment = [](std::uint64_t content) {
    return Segment{TokenClass::text, 10, {{content}}};
  };
  const std::vector<Segment> segments = {segment(1), segment(2), segment(3), segment(4)};
  const std::vector<PrefixId> ids = chain(segments, "tag");
  ASSERT_EQ(ids.size(), 4u);
  for (std::size_t changed = 0; changed < 4; ++changed) {
    std::vector<Segment> other = segments;
    other[changed] = segment(9);
    const std::vector<PrefixId> others = chain(other, "tag");
    for (std::size_t i = 0; i < 4; ++i) EXPECT_EQ(others[i] == ids[i], i < changed) << i;
  }
  EXPECT_NE(chain(std::vector{segment(2), segment(1)}, "tag")[1], ids[1]) << "order counts";
}

TEST(Content, NothingBehindAUniqueSegmentHasAnIdentity) {
  const Segment shared{TokenClass::text, 10, {{1}}}, unique{TokenClass::text, 10, {}};
  EXPECT_FALSE(chain(PrefixId{}, unique, "tag"));
  EXPECT_EQ(chain(std::vector{shared, unique, shared}, "tag"), chain(std::vector{shared}, "tag"));
  EXPECT_TRUE(chain(std::vector{unique, shared}, "tag").empty());
}

TEST(Content, TextIsNeverUnique) {
  EXPECT_FALSE(content_of_tokens({}).is_unique());
  EXPECT_NE(content_of_tokens({}), content_of_tokens(std::vector{0}));
  EXPECT_NE(content_of_tokens(std::vector{0}), content_of_tokens(std::vector{0, 0}));
}

}  // namespace
}  // namespace modalkv
