// Every seam of the KV cache fails on purpose, one kind of work after another: no wrong output, no
// hang, what is lost is named and can be appended again, and the counters tell.
#include <gtest/gtest.h>

#include "tests/runtime/history_worlds.hpp"

namespace modalkv {
namespace {

// What a group of operations is for.
enum class Work : std::uint8_t {
  append,
  compress,
  fork,
  leave,
  arrive,
  stage,
  send_queries,
  attend_on_cpu,
  attend,
  finish,
  score,
  bring_scores,
  promote,
};

constexpr std::string_view kWorks[] = {"Append", "Compress",    "Fork",        "Leave",  "Arrive",
                                       "Stage",  "SendQueries", "AttendOnCpu", "Attend", "Finish",
                                       "Score",  "BringScores", "Promote"};

// By its first operation, but for the checker's poison, and by what that copies: the cache
// registers the memory of the device, of the tables and of the host in turn; staging comes first on
// the device.
std::optional<Work> work_of(const Device& device, QueueId queue, std::span<const Op> ops) {
  const auto first = std::find_if_not(
      ops.begin(), ops.end(), [](const Op& op) { return std::holds_alternative<Fill>(op); });
  if (first == ops.end()) return {};
  const Op& op = *first;
  const auto* copy = std::get_if<Copy>(&op);
  switch (device.queues()[queue.index].kind) {
    case QueueKind::h2d:
      return copy->to.offset < 3 * history_config({}).staging_slot_bytes ? Work::stage
                                                                         : Work::arrive;
    case QueueKind::d2h:
      if (copy->to.space.index != 1) return Work::leave;
      return copy->from.space.index == 0 ? Work::bring_scores : Work::send_queries;
    case QueueKind::host:
      return Work::attend_on_cpu;
    default:
      break;
  }
  // Partials of the host come with the merge.
  if (copy != nullptr) return copy->from.space.index == 1 ? Work::finish : Work::fork;
  if (std::holds_alternative<Score>(op)) return Work::score;
  if (std::holds_alternative<Decode>(op))
    return std::any_of(first, ops.end(),
                       [](const Op& any) { return std::holds_alternative<Append>(any); })
               ? Work::promote
               : Work::compress;
  if (std::holds_alternative<Append>(op) || std::holds_alternative<Encode>(op)) return Work::append;
  const bool ends = std::holds_alternative<Merge>(op) || std::holds_alternative<Finish>(op);
  return ends ? Work::finish : Work::attend;
}

enum class Harm : std::uint8_t { busy, late, fail, lost, corrupt };

constexpr std::string_view kHarms[] = {"IsRefused", "EndsLate", "Fails", "IsNeverTold",
                                       "IsSpoiled"};

FaultPlan plan(Work work, Harm harm, std::uint64_t seed) {
  const double chance = work == Work::fork ? 0.7 : 0.3;  // there are not so many
  switch (harm) {
    case Harm::busy:
      return {.seed = seed, .busy = chance};
    case Harm::late:
      return {.seed = seed, .late = chance};
    case Harm::fail:
      return {.seed = seed, .fail = chance};
    case Harm::lost:
      return {.seed = seed, .lost = chance};
    case Harm::corrupt:
      break;
  }
  return {.seed = seed, .corrupt = chance};
}

std::uint64_t injected(const FaultCounts& counts) {
  return counts.busy + counts.late + counts.fail + counts.lost + counts.corrupt;
}

struct Row {
  Work work;
  Harm harm;
};

void PrintTo(const Row& row, std::ostream* out) {
  *out << kWorks[static_cast<std::size_t>(row.work)] << kHarms[static_cast<std::size_t>(row.harm)];
}

class KvCacheFault : public testing::TestWithParam<Row> {
 protected:
  // Some histories in which groups of a kind often meet the fault.
  void play() {
    for (std::uint64_t seed = 1; seed <= 8; ++seed) {
      SCOPED_TRACE(testing::Message() << "seed " << seed);
      HistoryMemory memory;
      Sim sim;
      FaultPlan faults = plan(GetParam().work, GetParam().harm, seed);
      faults.strikes = [&](QueueId queue, std::span<const Op> ops) {
        return work_of(sim.device, queue, ops) == GetParam().work;
      };
      FaultDevice failing(sim.device, faults);
      CheckingDevice checked(failing);
      const bool harmless = GetParam().harm == Harm::busy || GetParam().harm == Harm::late;
      const HistoryResult result =
          replay(checked, checked, memory, {.seed = seed, .faults = !harmless},
                 ActionSource(seed).draw(60));
      ASSERT_EQ(result.problem, "");
      injected_ += injected(failing.injected());
      failed_groups += result.counters.failed_groups;
      timeouts += result.counters.timeouts;
      lost_tokens += result.counters.lost_tokens;
      corrupt_pages += result.counters.corrupt_pages;
      failed_steps += result.failed_steps;
      good_outputs += result.good_outputs;
    }
    ASSERT_GT(injected_, 0u);
    EXPECT_GT(good_outputs, 50);
  }

  std::uint64_t injected_ = 0;
  std::int64_t failed_groups = 0, timeouts = 0, lost_tokens = 0, corrupt_pages = 0;
  int failed_steps = 0, good_outputs = 0;
};

TEST_P(KvCacheFault, CostsWhatItMustAndNoMore) {
  play();
  const auto [work, harm] = GetParam();
  RecordProperty("injected", static_cast<int>(injected_));
  RecordProperty("failed_groups", static_cast<int>(failed_groups));
  RecordProperty("lost_tokens", static_cast<int>(lost_tokens));
  RecordProperty("failed_steps", failed_steps);
  const bool writes = work == Work::append || work == Work::fork;
  const bool moves = work == Work::compress || work == Work::leave || work == Work::arrive ||
                     work == Work::score || work == Work::bring_scores || work == Work::promote;
  switch (harm) {
    case Harm::busy:
    case Harm::late:
      EXPECT_EQ(failed_groups, 0);
      EXPECT_EQ(failed_steps, 0);
      EXPECT_EQ(lost_tokens, 0);
      break;
    case Harm::fail:
    case Harm::lost:
      EXPECT_GT(failed_groups, 0);
      EXPECT_EQ(timeouts > 0, harm == Harm::lost);
      // What comes after a failure is cancelled, but not for ever.
      EXPECT_LE(failed_groups, 6 * static_cast<std::int64_t>(injected_));
      EXPECT_LE(failed_steps, 2 * static_cast<int>(injected_));
      EXPECT_EQ(lost_tokens > 0, writes) << "what was only to be moved or read is still there";
      if (!writes) {
        EXPECT_EQ(failed_steps > 0, !moves) << "a step does not wait for what moves";
      }
      break;
    case Harm::corrupt:
      EXPECT_GT(failed_groups, 0);
      EXPECT_EQ(corrupt_pages > 0, work != Work::stage) << "the page itself is well";
      EXPECT_EQ(lost_tokens > 0, work != Work::stage);
      break;
  }
}

std::vector<Row> rows() {
  std::vector<Row> all;
  for (std::size_t work = 0; work < std::size(kWorks); ++work)
    for (const Harm harm : {Harm::busy, Harm::late, Harm::fail, Harm::lost})
      // Promotions are too rare in so few histories: kv_cache_selection_test.cpp has theirs.
      if (static_cast<Work>(work) != Work::promote) all.push_back({static_cast<Work>(work), harm});
  for (const Work work : {Work::append, Work::leave, Work::stage})
    all.push_back({work, Harm::corrupt});
  return all;
}

INSTANTIATE_TEST_SUITE_P(EachWork, KvCacheFault, testing::ValuesIn(rows()),
                         [](const auto& test) { return testing::PrintToString(test.param); });

}  // namespace
}  // namespace modalkv
