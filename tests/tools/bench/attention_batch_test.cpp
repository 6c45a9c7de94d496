// The error that a measurement reports: small where the attention is right, and only there.
#include "tools/bench/attention_batch.hpp"

#include <gtest/gtest.h>

#include "modalkv/error.hpp"

namespace modalkv {
namespace {

AttentionCase small_case() {
  AttentionCase options;
  options.mix = parse_format_mix("fp16:0.25,int4:0.75");
  options.q_heads = 6;
  options.kv_heads = 2;
  options.head_dim = 64;
  options.tokens = 200;
  options.batch = 2;
  return options;
}

TEST(AttentionBatch, ErrorTellsRightFromWrong) {
  const AttentionCase options = small_case();
  AttentionBatch batch(options, 0);
  HostAttention attention(1);
  attention.attend(batch.sequences(1, -1));
  EXPECT_LT(batch.error_of_first_sequence(6), 0.015);
  EXPECT_GT(batch.error_of_first_sequence(6), 0);
  // A part of the tokens only; the queries of one sequence over the tokens of another.
  attention.attend(batch.sequences(0, 1));
  EXPECT_GT(batch.error_of_first_sequence(6), 0.1);
  const auto sequences = batch.sequences(0, -1);
  SequenceAttention swapped = sequences[0];
  swapped.queries = sequences[1].queries;
  attention.attend({&swapped, 1});
  EXPECT_GT(batch.error_of_first_sequence(6), 0.1);
}

TEST(AttentionBatch, PartsAddUp) {
  AttentionBatch batch(small_case(), 0);
  EXPECT_EQ(batch.lengths(), (std::vector<Tokens>{150, 250}));
  EXPECT_EQ(batch.part_tokens(0), 38 + 63);  // rounded a sequence
  EXPECT_EQ(batch.part_tokens(1), 112 + 187);
  EXPECT_EQ(batch.total_tokens(), 400);
  const auto one = batch.sequences(0, 1);
  ASSERT_EQ(one.size(), 2u);
  ASSERT_EQ(one[0].lists.size(), 1u);
  EXPECT_EQ(one[0].lists[0].tokens, 112);
  EXPECT_EQ(batch.sequences(0, -1)[1].lists.size(), 2u);
}

TEST(AttentionBatch, WhatDoesNotFitOrIsNoPageIsAnError) {
  AttentionCase options = small_case();
  options.tokens = 100'000'000'000;
  EXPECT_THROW(AttentionBatch(options, 0), Error);
  options = small_case();
  options.page_tokens = 40;
  EXPECT_THROW(AttentionBatch(options, 0), Error);
}

}  // namespace
}  // namespace modalkv
