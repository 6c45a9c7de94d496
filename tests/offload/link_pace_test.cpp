#include "offload/link_pace.hpp"

#include <gtest/gtest.h>

#include <cstdint>
#include <limits>

namespace modalkv {
namespace {

TEST(LinkPace, CopiesEndOneAfterAnother) {
  LinkPace link(1e9, 100);  // a byte a nanosecond
  link.idle_until(10'000);
  EXPECT_EQ(link.end_of(1000, 10'000), 11'100);
  EXPECT_EQ(link.end_of(500, 10'200), 11'700) << "behind the one before";
  link.idle_until(20'000);
  EXPECT_EQ(link.end_of(500, 20'000), 20'600) << "an idle link has nothing to make up for";
}

// Who wakes late from one copy asks late for the next: that must not slow the link down.
TEST(LinkPace, LateWakingDoesNotAddUp) {
  LinkPace link(1e9, 0);
  Nanos asked_ns = 0;
  for (int i = 0; i < 1000; ++i) asked_ns = link.end_of(100'000, asked_ns) + 60'000;
  EXPECT_EQ(link.end_of(0, asked_ns), 100'000'000);
}

// Copies that take longer than the link does not let the later ones run faster than it.
TEST(LinkPace, NoMoreThanALateWakingIsMadeUpFor) {
  LinkPace link(1e9, 0);
  Nanos now_ns = 0;
  for (int i = 0; i < 10; ++i) {
    link.end_of(1000, now_ns);
    now_ns += 5 * kMillisecond;
  }
  EXPECT_EQ(link.end_of(1000, now_ns), now_ns - LinkPace::kMostLateNanos + 1000);
}

TEST(LinkPace, ALinkThatNeverDeliversDoesNotOverflow) {
  LinkPace link(std::numeric_limits<double>::denorm_min(), 0);
  EXPECT_EQ(link.end_of(kGiB, 0), 3600 * kSecond);
}

}  // namespace
}  // namespace modalkv
