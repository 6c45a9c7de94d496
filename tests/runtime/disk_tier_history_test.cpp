// Random histories of a disk tier whose disk fails in every way and is opened anew.
#include "tests/runtime/disk_tier_history.hpp"

#include <gtest/gtest.h>

namespace modalkv {
namespace {

class TierHistories : public ::testing::TestWithParam<TierWeather> {
 protected:
  static void run(std::uint64_t seeds, int steps) {
    std::map<Status, int> outcomes;
    std::uint64_t evicted = 0;
    for (std::uint64_t seed = 1; seed <= seeds; ++seed) {
      SCOPED_TRACE(seed);
      TierHistory history(seed, GetParam());
      history.open();
      for (int life = 0; life < 4; ++life) {
        for (int i = 0; i < steps && !HasFatalFailure(); ++i) history.step();
        if (HasFatalFailure()) return;
        if (life % 2 == 0) {
          history.reopen_at_once();
          continue;
        }
        history.drain();
        if (HasFatalFailure()) return;
        // What the log failed to write it may have written all the same.
        if (GetParam().plan.lost == 0 && !GetParam().log_fails) history.reopen_settled();
      }
      for (const auto& [status, count] : history.outcomes) outcomes[status] += count;
      evicted += history.evicted;
    }
    EXPECT_GT(evicted, 0u);
    for (const Status status : GetParam().seen)
      EXPECT_GT(outcomes[status], 0) << name(status) << " never came up";
  }
};

class TierHistoriesNightly : public TierHistories {};

const TierWeather kWeathers[] = {
    {"fair", {}, {Status::ok, Status::cancelled}},
    {"frequent", {}, {Status::ok, Status::cancelled}, EvictionPolicy::tiny_lfu},
    {"costly", {}, {Status::ok, Status::cancelled}, EvictionPolicy::cost_aware},
    {"late", {.late = 0.2}, {Status::ok, Status::cancelled}},
    {"log", {}, {Status::ok, Status::no_space}, EvictionPolicy::lru, true},
    {"errors",
     {.read_error = 0.02,
      .short_read = 0.02,
      .write_error = 0.02,
      .no_space = 0.02,
      .sync_error = 0.02},
     {Status::ok, Status::io_error, Status::no_space}},
    {"flips", {.bit_flip = 0.02}, {Status::ok, Status::checksum}},
    {"lost", {.late = 0.1, .lost = 0.002}, {Status::ok, Status::timeout}},
    {"all",
     {.read_error = 0.01,
      .short_read = 0.01,
      .bit_flip = 0.01,
      .write_error = 0.01,
      .no_space = 0.01,
      .late = 0.1,
      .lost = 0.001,
      .sync_error = 0.02},
     {Status::ok, Status::io_error, Status::checksum},
     EvictionPolicy::lru,
     true}};

constexpr auto kName = [](const auto& tested) { return std::string(tested.param.name); };

INSTANTIATE_TEST_SUITE_P(Of, TierHistories, ::testing::ValuesIn(kWeathers), kName);
INSTANTIATE_TEST_SUITE_P(Of, TierHistoriesNightly, ::testing::ValuesIn(kWeathers), kName);

TEST_P(TierHistories, ServeWhatWasStoredAndLeakNothing) {
  run(3, 500);
}

TEST_P(TierHistoriesNightly, ServeWhatWasStoredAndLeakNothing) {
  run(60, 2000);
}

}  // namespace
}  // namespace modalkv
