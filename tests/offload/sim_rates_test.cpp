#include "offload/sim_rates.hpp"

#include <gtest/gtest.h>

#include "tests/offload/devices.hpp"

namespace modalkv {
namespace {

// By hand, from the numbers of small_machine().
class SimRatesTest : public testing::Test {
 protected:
  static Op copy(Bytes bytes) { return Copy{{SpaceId{0}, 0, bytes}, {SpaceId{1}, 0, bytes}}; }
  Nanos ns(QueueKind kind, const Op& op, bool first = false, bool opposed = false) const {
    return rates_.duration_ns({.kind = kind}, op, first, opposed);
  }

  SimRates rates_{small_machine()};
};

TEST_F(SimRatesTest, LargeCopiesRunAtTheRateOfTheirDirection) {
  EXPECT_EQ(ns(QueueKind::h2d, copy(25'000'000)), 1'000'000);
  EXPECT_EQ(ns(QueueKind::d2h, copy(20'000'000)), 1'000'000);
}

TEST_F(SimRatesTest, SmallCopiesRunAtTheRateOfTheirSize) {
  EXPECT_EQ(ns(QueueKind::h2d, copy(4'096)), 2'048);
  EXPECT_EQ(ns(QueueKind::h2d, copy(65'536)), 5'461);
  EXPECT_EQ(ns(QueueKind::h2d, copy(64)), 1'000) << "no faster than it is submitted";
}

TEST_F(SimRatesTest, OnlyTheFirstSubmissionIsNotHidden) {
  EXPECT_EQ(ns(QueueKind::h2d, copy(4'096), true), 1'000 + 2'048);
}

TEST_F(SimRatesTest, OppositeDirectionsShareTheLink) {
  EXPECT_EQ(ns(QueueKind::h2d, copy(25'000'000), false, true), 1'250'000);
  EXPECT_EQ(ns(QueueKind::d2h, copy(20'000'000), false, true), 1'250'000);
}

TEST_F(SimRatesTest, TheGpuReadsAtItsAttentionRate) {
  EXPECT_EQ(ns(QueueKind::compute, Fill{{SpaceId{0}, 0, 8'000'000}, 1}), 10'000);
  EXPECT_EQ(ns(QueueKind::compute, copy(4'000'000)), 10'000) << "read and written";
  EXPECT_EQ(ns(QueueKind::compute, EngineWork{1234}), 1234);
}

TEST_F(SimRatesTest, ScoringReadsKeysAlone) {
  const Bytes tokens = 32'000;
  const PageShape shape{16, 2, 64, {fp16(), int4_token_head()}};
  Score score;
  score.scores.bytes = 4 * tokens;
  score.shape = shape;
  score.tokens = tokens;
  EXPECT_EQ(ns(QueueKind::compute, score), (2 * 64 * 2 + 4) * 40) << "and writes a float a token";
}

TEST_F(SimRatesTest, ANodeHasItsShareOfWhatTheLinkLeaves) {
  // 100 GB/s of DRAM, 80 % within reach, 25 GB/s of that for the link: 27.5 GB/s a node.
  EXPECT_EQ(ns(QueueKind::host, Fill{{SpaceId{0}, 0, 27'500'000}, 1}), 1'000'000);
}

TEST_F(SimRatesTest, TheDiskHasLatencyAndItsSlowerRate) {
  EXPECT_EQ(ns(QueueKind::disk, copy(2'000'000)), 80'000 + 1'000'000);
}

TEST_F(SimRatesTest, HandoversAreBetweenGpuAndHost) {
  EXPECT_EQ(rates_.handover_ns(QueueKind::compute, QueueKind::host), 4'000);
  EXPECT_EQ(rates_.handover_ns(QueueKind::disk, QueueKind::h2d), 4'000);
  EXPECT_EQ(rates_.handover_ns(QueueKind::h2d, QueueKind::compute), 0);
  EXPECT_EQ(rates_.handover_ns(QueueKind::disk, QueueKind::host), 0);
}

TEST_F(SimRatesTest, ADeviceSlowsACopyWhileTheOtherDirectionIsBusy) {
  const auto end_ns = [](bool opposed) {
    SimDevice device(small_machine());
    for (int i = 0; i < 2; ++i) (void)device.register_space({SpaceInfo::Kind::host, kGiB, nullptr});
    const std::vector<Op> up{copy(25'000'000)}, down{copy(100'000'000)};
    if (opposed) (void)device.submit(*find_queue(device, QueueKind::d2h), down, {});
    const Ticket ticket = device.submit(*find_queue(device, QueueKind::h2d), up, {}).ticket;
    Completion completion;
    do completion = device.next_completion(kSecond).value();
    while (completion.ticket != ticket);
    return completion.at_ns;
  };
  EXPECT_EQ(end_ns(false), 1'001'000);
  EXPECT_EQ(end_ns(true), 1'251'000);
}

}  // namespace
}  // namespace modalkv
