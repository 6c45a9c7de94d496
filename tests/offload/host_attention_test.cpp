// Attention split over threads, against plain attention in double precision.
#include "offload/host_attention.hpp"

#include <gtest/gtest.h>
#include <sched.h>

#include <cstring>
#include <memory>
#include <vector>

#include "tests/kernels/made_attention.hpp"

namespace modalkv {
namespace {

// Sequences of lists of their own.
struct MadeBatch {
  struct Sequence {
    MadeQueries queries;
    std::vector<std::unique_ptr<MadeList>> made{};
    std::vector<PageList> lists{};
    std::vector<float> partials{};
  };
  std::vector<Sequence> sequences{};

  void add(MadeQueries queries, const std::vector<std::pair<PageShape, Tokens>>& lists,
           std::uint64_t seed) {
    Sequence& sequence = sequences.emplace_back(Sequence{std::move(queries)});
    for (const auto& [shape, tokens] : lists)
      sequence.made.push_back(std::make_unique<MadeList>(make_list(shape, tokens, seed += 1000)));
    for (const auto& list : sequence.made) sequence.lists.push_back(list->list());
    sequence.partials.assign(
        static_cast<std::size_t>(sequence.queries.rows() * (sequence.queries.head_dim + 2)), NAN);
  }

  void attend(HostAttention& attention) {
    std::vector<SequenceAttention> batch;
    for (Sequence& sequence : sequences)
      batch.push_back({sequence.queries.queries(), sequence.lists, sequence.partials});
    attention.attend(batch);
  }

  void expect_agrees() const {
    for (const Sequence& sequence : sequences)
      ASSERT_NO_FATAL_FAILURE(expect_close(sequence.queries.queries(), sequence.lists,
                                           sequence.queries.head_dim, sequence.partials));
  }
};

const PageShape kText{16, 2, 64, both(fp16())};
const PageShape kImage{48, 2, 64, both(int4_token_head())};

MadeBatch unequal_batch() {
  MadeBatch batch;
  batch.add(make_queries(1, 4, 64, 1, 1), {{kText, 100}, {kImage, 3000}}, 1);
  batch.add(make_queries(1, 4, 64, 1, 2), {{kText, 0}, {kImage, 5}}, 2);
  batch.add(make_queries(3, 6, 64, 1, 3), {{kImage, 700}, {kText, 650}}, 3);
  batch.add(make_queries(1, 2, 64, 1, 4), {{kText, 0}}, 4);
  batch.add(make_queries(1, 2, 64, 1, 5), {}, 5);
  return batch;
}

TEST(HostAttention, UnequalSequencesOnAnyNumberOfThreads) {
  for (const int threads : {1, 2, 3, 7}) {
    SCOPED_TRACE(threads);
    HostAttention attention(threads);
    MadeBatch batch = unequal_batch();
    for (int round = 0; round < 3; ++round) {
      batch.attend(attention);
      ASSERT_NO_FATAL_FAILURE(batch.expect_agrees());
    }
  }
}

TEST(HostAttention, OnGivenProcessors) {
  cpu_set_t allowed;
  ASSERT_EQ(sched_getaffinity(0, sizeof allowed, &allowed), 0);
  std::vector<int> cpus;
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu)
    if (CPU_ISSET(static_cast<unsigned>(cpu), &allowed)) cpus.push_back(cpu);
  HostAttention attention(cpus);
  EXPECT_EQ(attention.threads(), static_cast<int>(cpus.size()));
  MadeBatch batch = unequal_batch();
  batch.attend(attention);
  batch.expect_agrees();
  EXPECT_EQ(attention.unbound(), 0);
}

TEST(HostAttention, TheSameBytesEveryTime) {
  HostAttention attention(4);
  MadeBatch first = unequal_batch(), again = unequal_batch();
  first.attend(attention);
  for (int round = 0; round < 20; ++round) {
    again.attend(attention);
    for (std::size_t s = 0; s < first.sequences.size(); ++s)
      ASSERT_EQ(std::memcmp(first.sequences[s].partials.data(), again.sequences[s].partials.data(),
                            first.sequences[s].partials.size() * sizeof(float)),
                0);
  }
}

TEST(HostAttention, PiecesKeepTheirPositionsAndHiddenTokens) {
  MadeBatch batch;
  MadeQueries queries = make_queries(5, 4, 64, 1, 1);
  queries.positions = {0, 400, 1500, 1999, 5000};
  queries.window = 900;
  batch.add(queries, {{kImage, 2000}, {kText, 700}}, 1);
  std::mt19937_64 random(1);
  std::int32_t position = 0;
  for (std::size_t l = 0; l < 2; ++l) {
    MadeList& list = *batch.sequences[0].made[l];
    for (Tokens t = 0; t < list.tokens; ++t) list.positions.push_back(position++);
    for (Tokens t = 0; t < list.tokens; t += 64) list.hidden.push_back(random());
    batch.sequences[0].lists[l] = list.list();
  }
  HostAttention attention(3);
  batch.attend(attention);
  batch.expect_agrees();
}

TEST(HostAttention, AFewTokensOfManyHeadsAreSplitToo) {
  MadeBatch batch;
  batch.add(make_queries(1, 32, 64, 1, 1), {{{16, 16, 64, both(int8_token_head())}, 300}}, 1);
  HostAttention attention(4);
  batch.attend(attention);
  batch.expect_agrees();
}

}  // namespace
}  // namespace modalkv
