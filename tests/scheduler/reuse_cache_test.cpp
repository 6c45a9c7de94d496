#include "scheduler/reuse_cache.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>
#include <string>
#include <vector>

namespace modalkv {
namespace {

constexpr ReuseCache::TokenBytes kTokenBytes{.text = 10, .visual = 3};

ContentId id(std::uint64_t number) {
  return {{number, 0, 0, 7}};
}

Segment text(std::uint64_t number, Tokens tokens) {
  return {TokenClass::text, tokens, id(number)};
}
Segment image(std::uint64_t number, Tokens tokens) {
  return {TokenClass::image, tokens, id(number)};
}

TEST(ReuseCache, FindsTheLongestPrefixAndCountsIt) {
  ReuseCache cache(kTokenBytes);
  cache.set_capacity(10'000);
  const std::vector<Segment> prompt = {text(1, 10), image(2, 100), image(3, 50), text(4, 5)};
  EXPECT_EQ(cache.insert(prompt), 10 * 10 + 100 * 3 + 50 * 3 + 5 * 10);
  EXPECT_EQ(cache.used_bytes(), 600);
  EXPECT_EQ(cache.insert(prompt), 0) << "all of it is there";

  const std::vector<Segment> other = {text(1, 10), image(2, 100), image(9, 50), text(4, 5)};
  const ReuseCache::Prefix prefix = cache.find(other);
  EXPECT_EQ(prefix.tokens, 110);
  EXPECT_EQ(prefix.visual_tokens, 100);
  EXPECT_EQ(prefix.images, 1);
  EXPECT_EQ(prefix.bytes, 400);
}

TEST(ReuseCache, ASegmentCountsOnlyBehindEverythingBeforeIt) {
  ReuseCache cache(kTokenBytes);
  cache.set_capacity(10'000);
  cache.insert(std::vector{text(1, 10), image(2, 100)});
  EXPECT_EQ(cache.find(std::vector{image(2, 100)}).tokens, 0);
  EXPECT_EQ(cache.find(std::vector{image(2, 100), text(1, 10)}).tokens, 0);
  EXPECT_EQ(cache.find(std::vector{text(3, 10), image(2, 100)}).tokens, 0);
}

TEST(ReuseCache, AllBitsOfAnIdCount) {
  ReuseCache cache(kTokenBytes);
  cache.set_capacity(10'000);
  const ContentId base{{11, 22, 33, 44}};
  cache.insert(std::vector{Segment{TokenClass::text, 1, base}});
  for (std::size_t bit = 0; bit < 256; ++bit) {
    ContentId other = base;
    other.words[bit / 64] ^= std::uint64_t{1} << (bit % 64);
    EXPECT_EQ(cache.find(std::vector{Segment{TokenClass::text, 1, other}}).tokens, 0) << bit;
  }
}

TEST(ReuseCache, UniqueContentEndsWhatMayBeShared) {
  ReuseCache cache(kTokenBytes);
  cache.set_capacity(10'000);
  const std::vector<Segment> prompt = {text(1, 10), {TokenClass::text, 7, {}}, text(2, 10)};
  EXPECT_EQ(cache.insert(prompt), 100);
  EXPECT_EQ(cache.find(prompt).tokens, 10);
}

TEST(ReuseCache, APrefixOutlivesItsSuffixes) {
  ReuseCache cache(kTokenBytes);
  cache.set_capacity(300);
  cache.insert(std::vector{text(1, 10), text(2, 10), text(3, 10)});
  cache.insert(std::vector{text(9, 10)});
  EXPECT_EQ(cache.used_bytes(), 300);
  EXPECT_EQ(cache.find(std::vector{text(1, 10), text(2, 10), text(3, 10)}).tokens, 20);
  cache.set_capacity(100);
  EXPECT_EQ(cache.find(std::vector{text(1, 10), text(2, 10)}).tokens, 10);
}

TEST(ReuseCache, KeepsAsMuchOfAPrefixAsFits) {
  ReuseCache cache(kTokenBytes);
  EXPECT_EQ(cache.insert(std::vector{text(1, 1)}), 0) << "no capacity yet";
  cache.set_capacity(250);
  EXPECT_EQ(cache.insert(std::vector{text(1, 10), text(2, 10), text(3, 10)}), 200);
  EXPECT_EQ(cache.used_bytes(), 200);
  EXPECT_EQ(cache.find(std::vector{text(1, 10), text(2, 10), text(3, 10)}).tokens, 20);
}

// Whole prefixes by name, each with the time of its last use; the deepest of the oldest go first.
class NaiveCache {
 public:
  using Path = std::vector<std::uint64_t>;

  void set_capacity(Bytes capacity) {
    capacity_ = capacity;
    shrink_to(capacity_);
  }

  ReuseCache::Prefix find(const std::vector<Segment>& segments) {
    ++now_;
    ReuseCache::Prefix prefix;
    Path path;
    for (const Segment& segment : segments) {
      path.push_back(segment.content.words[0]);
      const auto entry = entries_.find(path);
      if (segment.content.is_unique() || entry == entries_.end()) break;
      entry->second.used = now_;
      prefix.tokens += segment.tokens;
      prefix.bytes += entry->second.bytes;
      prefix.visual_tokens += is_visual(segment.token_class) ? segment.tokens : 0;
      prefix.images += is_visual(segment.token_class);
    }
    return prefix;
  }

  Bytes insert(const std::vector<Segment>& segments) {
    ++now_;
    Bytes added = 0, prefix = 0;
    Path path;
    for (const Segment& segment : segments) {
      if (segment.content.is_unique()) break;
      path.push_back(segment.content.words[0]);
      const Bytes bytes = segment.tokens * (is_visual(segment.token_class) ? 3 : 10);
      prefix += bytes;
      if (prefix > capacity_) break;
      if (!entries_.contains(path)) {
        shrink_to(capacity_ - bytes);
        added += bytes;
        entries_[path].bytes = bytes;
      }
      entries_[path].used = now_;
    }
    return added;
  }

  Bytes used() const {
    Bytes bytes = 0;
    for (const auto& [path, entry] : entries_) bytes += entry.bytes;
    return bytes;
  }

 private:
  struct Entry {
    Bytes bytes = 0;
    int used = 0;
  };

  void shrink_to(Bytes bytes) {
    while (used() > bytes) {
      const auto first =
          std::min_element(entries_.begin(), entries_.end(), [](const auto& a, const auto& b) {
            if (a.second.used != b.second.used) return a.second.used < b.second.used;
            return a.first.size() > b.first.size();
          });
      entries_.erase(first);
    }
  }

  std::map<Path, Entry> entries_;
  Bytes capacity_ = 0;
  int now_ = 0;
};

TEST(ReuseCache, BehavesAsANaiveCacheUnderRandomUse) {
  for (std::uint64_t seed = 1; seed <= 200; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    std::mt19937_64 random(seed);
    ReuseCache cache(kTokenBytes);
    NaiveCache naive;
    Bytes capacity = 0;
    for (int operation = 0; operation < 300; ++operation) {
      std::vector<Segment> prompt;
      for (std::uint64_t depth = 1 + random() % 5; depth > 0; --depth) {
        const std::uint64_t content = random() % 4;  // 0 where unique
        const Segment segment{content == 2 ? TokenClass::video : TokenClass::text,
                              static_cast<Tokens>(1 + content * 3),
                              content == 0 ? ContentId{} : ContentId{{content}}};
        prompt.push_back(segment);
      }
      switch (random() % 20) {
        case 0:
          capacity = static_cast<Bytes>(random() % 1500);
          cache.set_capacity(capacity);
          naive.set_capacity(capacity);
          break;
        case 1:
        case 2:
        case 3:
        case 4:
        case 5:
        case 6:
        case 7:
        case 8: {
          const ReuseCache::Prefix found = cache.find(prompt), expected = naive.find(prompt);
          ASSERT_EQ(found.tokens, expected.tokens) << "operation " << operation;
          ASSERT_EQ(found.visual_tokens, expected.visual_tokens);
          ASSERT_EQ(found.images, expected.images);
          ASSERT_EQ(found.bytes, expected.bytes);
          break;
        }
        default:
          ASSERT_EQ(cache.insert(prompt), naive.insert(prompt)) << "operation " << operation;
      }
      ASSERT_EQ(cache.used_bytes(), naive.used());
      ASSERT_LE(cache.used_bytes(), capacity);
    }
  }
}

}  // namespace
}  // namespace modalkv
