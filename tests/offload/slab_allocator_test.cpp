// Against a naive model that knows nothing but the pages in use, and at the stated bounds.
#include "offload/slab_allocator.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <numeric>
#include <random>
#include <set>

#include "modalkv/error.hpp"

namespace modalkv {
namespace {

// Pages in use by offset. What the allocator holds follows from where they are: a slab belongs to
// the class of the pages in it.
class Model {
 public:
  Model(std::vector<Bytes> classes, Bytes slab_bytes)
      : classes_(std::move(classes)), slab_bytes_(slab_bytes) {}

  void add(Bytes offset, Bytes page_bytes, Bytes capacity_bytes) {
    const Bytes slab = offset / slab_bytes_ * slab_bytes_;
    ASSERT_EQ(offset % 64, 0);
    ASSERT_EQ((offset - slab) % page_bytes, 0);
    ASSERT_LE(offset + page_bytes, std::min(slab + slab_bytes_, capacity_bytes));
    const auto after = used_.lower_bound(offset);
    if (after != used_.end()) {
      ASSERT_LE(offset + page_bytes, after->first);
    }
    if (after != used_.begin()) {
      ASSERT_LE(std::prev(after)->first + std::prev(after)->second, offset);
    }
    used_.emplace(offset, page_bytes);
    most_[page_bytes] = std::max(most_[page_bytes], pages(page_bytes));
  }
  void remove(Bytes offset) { used_.erase(offset); }

  std::int64_t pages(Bytes page_bytes) const {
    return std::count_if(used_.begin(), used_.end(),
                         [&](const auto& page) { return page.second == page_bytes; });
  }
  std::set<Bytes> slabs(Bytes page_bytes) const {
    std::set<Bytes> slabs;
    for (const auto& [offset, bytes] : used_)
      if (bytes == page_bytes) slabs.insert(offset / slab_bytes_);
    return slabs;
  }
  std::int64_t free_slabs(Bytes capacity_bytes) const {
    std::int64_t slabs = capacity_bytes / slab_bytes_;
    for (const Bytes bytes : classes_)
      slabs -= static_cast<std::int64_t>(this->slabs(bytes).size());
    return slabs;
  }
  std::int64_t free_pages(Bytes page_bytes, Bytes capacity_bytes) const {
    const auto slabs = static_cast<std::int64_t>(this->slabs(page_bytes).size());
    return (slabs + free_slabs(capacity_bytes)) * (slab_bytes_ / page_bytes) - pages(page_bytes);
  }

  void expect_describes(const SlabStatistics& statistics) const {
    ASSERT_EQ(statistics.free_slabs, free_slabs(statistics.capacity_bytes));
    Bytes accounted =
        statistics.free_bytes() + statistics.used_bytes() + statistics.stranded_bytes();
    for (const auto& c : statistics.classes) {
      ASSERT_EQ(c.used_pages, pages(c.page_bytes));
      ASSERT_EQ(c.slabs, static_cast<std::int64_t>(slabs(c.page_bytes).size()));
      const auto most = most_.find(c.page_bytes);
      ASSERT_EQ(c.most_used_pages, most == most_.end() ? 0 : most->second);
      // The bound that the header states.
      ASSERT_LE(c.slabs, divide_up(c.most_used_pages, c.pages_per_slab));
      accounted += c.slabs * (slab_bytes_ % c.page_bytes);
    }
    ASSERT_EQ(accounted, statistics.capacity_bytes);
  }
  const std::map<Bytes, Bytes>& used() const { return used_; }

 private:
  std::vector<Bytes> classes_;
  Bytes slab_bytes_;
  std::map<Bytes, Bytes> used_;
  std::map<Bytes, std::int64_t> most_;
};

std::int64_t runs_of(std::span<const Bytes> offsets, Bytes page_bytes) {
  std::int64_t runs = offsets.empty() ? 0 : 1;
  for (std::size_t i = 1; i < offsets.size(); ++i)
    runs += offsets[i] != offsets[i - 1] + page_bytes;
  return runs;
}

// A history of allocations of some pages at once and releases, while the space grows.
void live_a_random_life(std::uint64_t seed) {
  SCOPED_TRACE(testing::Message() << "seed " << seed);
  std::mt19937_64 random(seed);
  const auto below = [&](std::uint64_t n) { return random() % n; };
  std::set<Bytes> sizes;
  for (std::uint64_t n = 1 + below(5); sizes.size() < n;)
    sizes.insert(static_cast<Bytes>(64 * (1 + below(256))));
  const std::vector<Bytes> classes(sizes.begin(), sizes.end());
  const Bytes slab_bytes = round_up(classes.back() * static_cast<Bytes>(1 + below(9)), 64);
  const Bytes max_bytes = slab_bytes * static_cast<Bytes>(1 + below(24)) + 64;
  SlabAllocator allocator(classes, slab_bytes, max_bytes);
  Model model(classes, slab_bytes);
  Bytes capacity = 0;
  for (int step = 0; step < 400; ++step) {
    const Bytes page_bytes = classes[below(classes.size())];
    const bool filling = (step / 50) % 2 == 0;
    if (below(20) == 0) {
      allocator.grow(capacity = std::min(
                         max_bytes, capacity + static_cast<Bytes>(below(
                                                   static_cast<std::uint64_t>(3 * slab_bytes)))));
    } else if (below(10) < (filling ? 7 : 3)) {
      std::vector<Bytes> offsets(1 + (below(2) == 0 ? 0 : below(40)), -1);
      const std::int64_t free = model.free_pages(page_bytes, capacity);
      const bool given = allocator.allocate(page_bytes, offsets);
      ASSERT_EQ(given, static_cast<std::int64_t>(offsets.size()) <= free);
      for (const Bytes offset : offsets) {
        if (!given) {
          ASSERT_EQ(offset, -1);
        } else {
          ASSERT_NO_FATAL_FAILURE(model.add(offset, page_bytes, capacity));
        }
      }
    } else if (!model.used().empty()) {
      for (std::uint64_t n = 1 + below(30); n > 0 && !model.used().empty(); --n) {
        auto page = model.used().lower_bound(
            static_cast<Bytes>(below(static_cast<std::uint64_t>(capacity))));
        if (page == model.used().end()) page = model.used().begin();
        const Bytes offset = page->first;
        allocator.release(offset);
        model.remove(offset);
      }
    }
    if (step % 7 == 0) {
      ASSERT_NO_FATAL_FAILURE(model.expect_describes(allocator.statistics()));
    }
  }
  while (!model.used().empty()) {
    const Bytes offset = model.used().begin()->first;
    allocator.release(offset);
    model.remove(offset);
  }
  EXPECT_EQ(allocator.statistics().free_bytes(), capacity / slab_bytes * slab_bytes);
}

TEST(SlabAllocator, AgreesWithANaiveModel) {
  for (std::uint64_t seed = 1; seed <= 40; ++seed)
    ASSERT_NO_FATAL_FAILURE(live_a_random_life(seed));
}

TEST(SlabAllocatorNightly, AgreesWithANaiveModel) {
  for (std::uint64_t seed = 1000; seed < 1300; ++seed)
    ASSERT_NO_FATAL_FAILURE(live_a_random_life(seed));
}

constexpr Bytes kSlab = 2 * kMiB;

TEST(SlabAllocator, SlabsLoseAtMostASixteenth) {
  const std::vector<std::vector<Bytes>> mixes{
      {4096}, {64 * 129}, {3 * kMiB}, {4096, 3 * kMiB, 5 * kMiB - 64}, {kMiB + 64, 2 * kMiB - 64}};
  for (const std::vector<Bytes>& mix : mixes) {
    const Bytes slab = slab_bytes_for(mix);
    EXPECT_EQ(slab % kSlab, 0);
    EXPECT_LE(slab, round_up(16 * *std::max_element(mix.begin(), mix.end()), kSlab));
    for (const Bytes page : mix) EXPECT_LE(slab % page, slab / 16) << page << " in " << slab;
  }
  EXPECT_EQ(slab_bytes_for(mixes[0]), kSlab);
  EXPECT_EQ(slab_bytes_for(mixes[2]), 3 * kSlab);
}

TEST(SlabAllocator, PagesAllocatedTogetherAreNeighbours) {
  SlabAllocator allocator({8192, 32768}, kSlab, 8 * kSlab);
  allocator.grow(8 * kSlab);
  std::vector<Bytes> images(256), text;
  ASSERT_TRUE(allocator.allocate(8192, images));
  EXPECT_EQ(runs_of(images, 8192), 1);
  for (int i = 0; i < 64; ++i) text.push_back(*allocator.allocate(32768));
  EXPECT_EQ(runs_of(text, 32768), 1);
  // A hole of just the right size is taken rather than a longer one.
  for (const std::size_t page : {10, 11, 12, 13, 100, 101, 102}) allocator.release(images[page]);
  std::vector<Bytes> three(3);
  ASSERT_TRUE(allocator.allocate(8192, three));
  EXPECT_EQ(three, (std::vector{images[100], images[101], images[102]}));
}

// Images come and go at 90 % occupancy; what a copy sees is how many pieces an image is in.
TEST(SlabAllocator, ImagesStayInFewPiecesUnderChurn) {
  std::mt19937_64 random(7);
  constexpr Bytes page = 8192;
  constexpr int slabs = 32;
  SlabAllocator allocator({page, 32768}, kSlab, slabs * kSlab);
  allocator.grow(slabs * kSlab);
  const std::int64_t full = slabs * (kSlab / page) * 9 / 10;
  std::vector<std::vector<Bytes>> images;
  std::int64_t used = 0, pages = 0, runs = 0;
  for (int step = 0; step < 20'000; ++step) {
    std::vector<Bytes> image(16 + random() % 100);
    while (used + static_cast<std::int64_t>(image.size()) > full) {
      std::swap(images[random() % images.size()], images.back());
      for (const Bytes offset : images.back()) allocator.release(offset);
      used -= static_cast<std::int64_t>(images.back().size());
      images.pop_back();
    }
    ASSERT_TRUE(allocator.allocate(page, image));
    used += static_cast<std::int64_t>(image.size());
    pages += static_cast<std::int64_t>(image.size());
    runs += runs_of(image, page);
    images.push_back(std::move(image));
  }
  RecordProperty("pages_per_run",
                 std::to_string(static_cast<double>(pages) / static_cast<double>(runs)));
  EXPECT_GE(pages, 8 * runs) << pages << " pages in " << runs << " runs";
  EXPECT_LE(allocator.statistics().fragmentation(), 0.12);
}

// One page kept in every slab: the worst that a class can do to the others.
TEST(SlabAllocator, StrandsNoMoreThanStated) {
  SlabAllocator allocator({4096, kMiB}, kSlab, 16 * kSlab);
  allocator.grow(16 * kSlab);
  std::vector<Bytes> small(16 * kSlab / 4096);
  ASSERT_TRUE(allocator.allocate(4096, small));
  for (const Bytes offset : small)
    if (offset % kSlab != 4096) allocator.release(offset);
  EXPECT_FALSE(allocator.allocate(kMiB));
  EXPECT_EQ(allocator.statistics().stranded_bytes(), 16 * (kSlab - 4096));
  EXPECT_NEAR(allocator.statistics().fragmentation(), 1 - 4096. / kSlab, 1e-9);
  // The class itself goes on where it was, and a slab is everyone's again with its last page.
  std::vector<Bytes> again(16 * kSlab / 4096 - 16);
  EXPECT_TRUE(allocator.allocate(4096, again));
  for (const Bytes offset : again)
    if (offset < kSlab) allocator.release(offset);
  allocator.release(4096);
  EXPECT_EQ(allocator.allocate(kMiB), Bytes{0});
}

// Each class swings between nothing and its share in its own time: never refused, as stated.
TEST(SlabAllocator, NeverRefusesWhatTheMostPagesFill) {
  const std::vector<Bytes> classes{4096, 8256, 32768, 3 * kMiB};
  const Bytes slab = slab_bytes_for(classes);
  SlabAllocator allocator(classes, slab, 16 * slab);
  allocator.grow(16 * slab);
  std::mt19937_64 random(11);
  std::vector<std::vector<Bytes>> held(classes.size());
  for (int step = 0; step < 20'000; ++step) {
    const std::size_t c = random() % classes.size();
    const auto share = static_cast<std::size_t>(4 * (slab / classes[c]));
    if ((static_cast<std::size_t>(step) / (500 + 100 * c)) % 2 == 0) {
      std::vector<Bytes> more(std::min<std::size_t>(1 + random() % 64, share - held[c].size()));
      ASSERT_TRUE(allocator.allocate(classes[c], more)) << "step " << step;
      held[c].insert(held[c].end(), more.begin(), more.end());
    } else {
      for (std::size_t n = 1 + random() % 64; n > 0 && !held[c].empty(); --n) {
        std::swap(held[c][random() % held[c].size()], held[c].back());
        allocator.release(held[c].back());
        held[c].pop_back();
      }
    }
  }
}

TEST(SlabAllocator, GrowsWhileInUse) {
  SlabAllocator allocator({4096}, kSlab, 4 * kSlab + 5);
  EXPECT_FALSE(allocator.allocate(4096));
  allocator.grow(kSlab - 1);
  EXPECT_FALSE(allocator.allocate(4096));
  allocator.grow(kSlab + 4096);
  std::vector<Bytes> all(kSlab / 4096);
  ASSERT_TRUE(allocator.allocate(4096, all));
  EXPECT_FALSE(allocator.allocate(4096));
  allocator.grow(0);  // nothing is taken away
  allocator.grow(4 * kSlab + 5);
  EXPECT_EQ(allocator.statistics().capacity_bytes, 4 * kSlab);
  EXPECT_EQ(allocator.allocate(4096), kSlab);
}

TEST(SlabAllocator, RefusesImpossibleSizes) {
  using Sizes = std::vector<Bytes>;
  EXPECT_THROW(SlabAllocator(Sizes{}, kSlab, kSlab), Error);
  EXPECT_THROW(SlabAllocator(Sizes{4096, 4096}, kSlab, kSlab), Error);
  EXPECT_THROW(SlabAllocator(Sizes{4100}, kSlab, kSlab), Error);
  EXPECT_THROW(SlabAllocator(Sizes{0}, kSlab, kSlab), Error);
  EXPECT_THROW(SlabAllocator(Sizes{2 * kSlab}, kSlab, kSlab), Error);
  EXPECT_THROW(SlabAllocator(Sizes{4096}, 100, kSlab), Error);
  EXPECT_THROW(SlabAllocator(Sizes{4096}, kSlab, -1), Error);
}

TEST(SlabAllocator, WrongReleasesAreBugs) {
  SlabAllocator allocator({4096, 8256}, kSlab, 2 * kSlab);
  allocator.grow(2 * kSlab);
  const Bytes page = *allocator.allocate(8256), other = *allocator.allocate(8256);
  allocator.release(other);
  EXPECT_DEATH(allocator.release(other), "released twice");
  EXPECT_DEATH(allocator.release(page + 64), "no page of 8256 B begins there");
  EXPECT_DEATH(allocator.release(kSlab / 8256 * 8256), "no page of 8256 B begins there");
  EXPECT_DEATH(allocator.release(kSlab), "its slab is free");
  EXPECT_DEATH(allocator.release(2 * kSlab), "has 2 slabs");
  EXPECT_DEATH(allocator.release(-64), "has 2 slabs");
  EXPECT_DEATH(static_cast<void>(allocator.allocate(4160)), "no class has pages of 4160 B");
  EXPECT_DEATH(allocator.grow(3 * kSlab), "above the");
  allocator.release(page);
  EXPECT_DEATH(allocator.release(page), "its slab is free");
}

}  // namespace
}  // namespace modalkv
