#include "tools/trace/content_id.hpp"

#include <gtest/gtest.h>

#include <set>

namespace modalkv {
namespace {

TEST(ContentId, NumbersAndNamesAreDistinctAndNeverUnique) {
  std::set<ContentId> ids;
  for (std::uint64_t number = 0; number < 1000; ++number) ids.insert(content_id(number));
  for (int number = 0; number < 1000; ++number) ids.insert(content_id(std::to_string(number)));
  ids.insert({content_id(""), content_id("cat"), content_id("act"), content_id("cat ")});
  EXPECT_EQ(ids.size(), 2004u);
  EXPECT_FALSE(ids.contains(ContentId{}));
}

TEST(ContentId, HexadecimalDigitsStandForThemselves) {
  EXPECT_EQ(content_id("000000000000000100000000000000020000000000000003000000000000000F"),
            (ContentId{{1, 2, 3, 15}}));
  EXPECT_FALSE(content_id(std::string(64, '0')).is_unique());
  EXPECT_NE(content_id(std::string(64, 'a')), content_id(std::string(63, 'a') + "g"));
}

TEST(ContentId, EveryWordDependsOnEveryByte) {
  const ContentId a = content_id("image of a cat"), b = content_id("image of a bat");
  for (std::size_t word = 0; word < 4; ++word) EXPECT_NE(a.words[word], b.words[word]) << word;
}

TEST(ContentId, WhatIsWrittenReadsBack) {
  EXPECT_EQ(content_id_json(content_id(17)), "17");
  for (const ContentId id : {content_id(UINT64_MAX), content_id("cat"), ContentId{{0, 0, 0, 1}}}) {
    const std::string json = content_id_json(id);
    ASSERT_EQ(json.size(), 66u) << json;
    EXPECT_EQ(content_id(std::string_view(json).substr(1, 64)), id);
  }
}

}  // namespace
}  // namespace modalkv
