#include "scheduler/content_index.hpp"

#include <gtest/gtest.h>

#include <map>
#include <random>
#include <string>

namespace modalkv {
namespace {

struct SameForAll {
  std::size_t operator()(const PrefixId&) const { return 7; }
};

// The planted bug: a table that keeps the hash and forgets what was hashed.
class TruncatingIndex {
 public:
  bool insert(const PrefixId& id, UnitId unit) {
    return units_.try_emplace(id.words[0], unit).second;
  }
  bool erase(const PrefixId& id) { return units_.erase(id.words[0]) == 1; }
  std::vector<UnitId> lookup(std::span<const PrefixId> ids) const {
    std::vector<UnitId> run;
    for (const PrefixId& id : ids) {
      const auto found = units_.find(id.words[0]);
      if (found == units_.end()) break;
      run.push_back(found->second);
    }
    return run;
  }

 private:
  std::map<std::uint64_t, UnitId> units_;
};

UnitId unit(std::uint64_t number) {
  return UnitId{number};
}

// Whether two ids that differ in one bit, any bit, are ever taken for each other.
template <typename Index>
bool confuses_any_bit() {
  const PrefixId base{{11, 22, 33, 44}};
  for (std::size_t bit = 0; bit < 256; ++bit) {
    PrefixId other = base;
    other.words[bit / 64] ^= std::uint64_t{1} << bit % 64;
    Index index;
    if (!index.insert(base, unit(1)) || !index.lookup(std::vector{other}).empty()) return true;
    if (!index.insert(other, unit(2)) || index.lookup(std::vector{base, other}).size() != 2)
      return true;
    if (!index.erase(base) || index.lookup(std::vector{other}) != std::vector{unit(2)}) return true;
  }
  return false;
}

TEST(ContentIndex, AllBitsOfAnIdCount) {
  EXPECT_FALSE(confuses_any_bit<ContentIndex>());
  EXPECT_FALSE(confuses_any_bit<BasicContentIndex<SameForAll>>());
  EXPECT_TRUE(confuses_any_bit<TruncatingIndex>()) << "the planted bug went unseen";
}

TEST(ContentIndex, FindsTheLongestLeadingRunAndOnlyThat) {
  std::vector<Segment> prompt;
  for (std::uint64_t content = 1; content <= 5; ++content)
    prompt.push_back({TokenClass::text, 10, {{content}}});
  const std::vector<PrefixId> ids = chain(prompt, "tag");

  ContentIndex index;
  EXPECT_TRUE(index.lookup(ids).empty());
  for (const std::size_t held : {0u, 1u, 3u, 4u}) ASSERT_TRUE(index.insert(ids[held], unit(held)));
  EXPECT_EQ(index.lookup(ids), (std::vector{unit(0), unit(1)})) << "nothing behind a hole";
  EXPECT_EQ(index.lookup(ids), (std::vector{unit(0), unit(1)})) << "asking changes nothing";
  ASSERT_TRUE(index.insert(ids[2], unit(2)));
  EXPECT_EQ(index.lookup(ids).size(), 5u);

  prompt[1].content = {{9}};
  EXPECT_EQ(index.lookup(chain(prompt, "tag")), std::vector{unit(0)});
  EXPECT_TRUE(index.lookup(chain(prompt, "other model")).empty());
}

TEST(ContentIndex, TheFirstUnitOfAContentStays) {
  ContentIndex index;
  const PrefixId id{{1, 2, 3, 4}};
  EXPECT_TRUE(index.insert(id, unit(1)));
  EXPECT_FALSE(index.insert(id, unit(2)));
  EXPECT_EQ(index.find(id), unit(1));
  EXPECT_TRUE(index.erase(id));
  EXPECT_FALSE(index.erase(id));
  EXPECT_EQ(index.find(id), std::nullopt);
}

template <typename Index>
void behaves_as_a_map(std::uint64_t seed) {
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937_64 random(seed);
  Index index;
  std::map<PrefixId, UnitId> naive;
  const auto some_id = [&] {  // few values a word: most ids agree in some of them
    return PrefixId{{random() % 2, random() % 2, random() % 3, random() % 3}};
  };
  for (std::uint64_t operation = 0; operation < 2000; ++operation) {
    const PrefixId id = some_id();
    switch (random() % 3) {
      case 0:
        ASSERT_EQ(index.insert(id, unit(operation)), naive.emplace(id, unit(operation)).second);
        break;
      case 1:
        ASSERT_EQ(index.erase(id), naive.erase(id) == 1);
        break;
      default: {
        const std::vector<PrefixId> ids = {id, some_id(), some_id(), some_id()};
        std::vector<UnitId> run;
        for (const PrefixId& each : ids) {
          if (!naive.contains(each)) break;
          run.push_back(naive.at(each));
        }
        ASSERT_EQ(index.lookup(ids), run);
      }
    }
    ASSERT_EQ(index.size(), naive.size());
  }
}

TEST(ContentIndex, BehavesAsAMapHoweverItHashes) {
  for (std::uint64_t seed = 1; seed <= 20; ++seed) {
    behaves_as_a_map<ContentIndex>(seed);
    behaves_as_a_map<BasicContentIndex<SameForAll>>(seed);
  }
}

}  // namespace
}  // namespace modalkv
