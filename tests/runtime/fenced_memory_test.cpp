#include "runtime/fenced_memory.hpp"

#include <gtest/gtest.h>

#include <random>

namespace modalkv {
namespace {

struct Taken {
  Address where;
  Fence fence = 0;  // 0: not closed yet
};

TEST(FencedRing, NeverGivesOutWhatIsInUse) {
  for (std::uint64_t seed = 1; seed <= 100; ++seed) {
    SCOPED_TRACE(seed);
    std::mt19937_64 random(seed);
    FencedRing ring({{3}, 1024, 4096});
    std::vector<Taken> in_use;
    Fence next = 1, passed = 1;
    int taken = 0, refused = 0;
    for (int i = 0; i < 500; ++i) {
      const std::uint64_t what = random() % 10;
      if (what < 6) {
        const auto bytes = static_cast<Bytes>(1 + random() % 900);
        const auto where = ring.take(bytes);
        ++(where ? taken : refused);
        if (!where) continue;
        EXPECT_EQ(where->bytes, bytes);
        EXPECT_EQ(where->offset % 64, 0);
        EXPECT_GE(where->offset, 1024);
        EXPECT_LE(where->offset + bytes, 1024 + 4096);
        for (const Taken& other : in_use) ASSERT_FALSE(overlap(*where, other.where));
        in_use.push_back({*where});
      } else if (what < 7) {
        ring.cancel();
        std::erase_if(in_use, [](const Taken& each) { return each.fence == 0; });
      } else if (what < 9) {
        ring.close(++next);
        for (Taken& each : in_use)
          if (each.fence == 0) each.fence = next;
      } else {
        passed += random() % (next - passed + 1);
        ring.recycle(passed);
        std::erase_if(in_use,
                      [&](const Taken& each) { return each.fence != 0 && each.fence <= passed; });
      }
    }
    EXPECT_GT(taken, 50);
    EXPECT_GT(refused, 0);
    ring.close(++next);
    ring.recycle(next);
    EXPECT_TRUE(ring.empty());
    EXPECT_TRUE(ring.take(4096).has_value()) << "all of it is free again";
  }
}

TEST(PagePool, ASlotComesBackWhenItsFenceIsPassed) {
  PagePool pool({{1}, 128, 4 * 4096}, {4096}, 4096);
  EXPECT_FALSE(pool.take(4096).has_value()) << "nothing may be used yet";
  pool.grow(4096);
  const auto slot = pool.take(4096);
  ASSERT_TRUE(slot.has_value());
  EXPECT_EQ(slot->offset, 128);
  pool.give_back(*slot, 7);
  pool.recycle(6);
  EXPECT_FALSE(pool.take(4096).has_value());
  EXPECT_EQ(pool.retired_bytes(), 4096);
  pool.recycle(7);
  EXPECT_EQ(pool.used_bytes(), 0);
  EXPECT_TRUE(pool.take(4096).has_value());
}

}  // namespace
}  // namespace modalkv
