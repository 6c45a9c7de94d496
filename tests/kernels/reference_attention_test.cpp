// The reference itself, against what can be worked out on paper and against attend().
#include "tests/kernels/reference_attention.hpp"

#include <gtest/gtest.h>

#include "tests/kernels/made_lists.hpp"

namespace modalkv {
namespace {

// Logits 0, ln 2 and 2 ln 2: weights 1, 2, 4.
TEST(ReferenceAttention, ThreeTokensByHand) {
  reference::DecodedList list{.kv_heads = 1, .head_dim = 2, .tokens = 3};
  list.keys = {0, 5, 1, 5, 2, 5};
  list.values = {7, 0, 14, 0, 21, 7};
  const std::uint16_t query[] = {0x3c00, 0};  // 1, 0
  Queries queries{.elements = query, .token_stride = 2, .head_stride = 2};
  queries.scale = std::log(2.0f);
  auto found = reference::attention(queries, {&list, 1}, 2);
  EXPECT_NEAR(found.probabilities[0], 1.0 / 7, 1e-7);
  EXPECT_NEAR(found.probabilities[1], 2.0 / 7, 1e-7);
  EXPECT_NEAR(found.probabilities[2], 4.0 / 7, 1e-7);
  EXPECT_NEAR(found.outputs[0], 1 + 4 + 12, 1e-5);
  EXPECT_NEAR(found.outputs[1], 4, 1e-6);
  EXPECT_NEAR(found.log_sum_exp[0], std::log(7.0), 1e-7);

  // Positions 10, 11, 12 seen from 11 with a window of one, then with the middle one hidden.
  const std::int32_t now[] = {11};
  queries.positions = now;
  queries.window = 1;
  list.positions = {10, 11, 12};
  found = reference::attention(queries, {&list, 1}, 2);
  EXPECT_EQ(found.probabilities, (std::vector<double>{0, 1, 0}));
  queries.window = 0;
  found = reference::attention(queries, {&list, 1}, 2);
  EXPECT_NEAR(found.probabilities[1], 2.0 / 3, 1e-7);
  list.hidden = {false, true, false};
  found = reference::attention(queries, {&list, 1}, 2);
  EXPECT_EQ(found.probabilities, (std::vector<double>{1, 0, 0}));
  list.hidden = {true, true, false};
  found = reference::attention(queries, {&list, 1}, 2);
  EXPECT_EQ(found.outputs, (std::vector<double>{0, 0}));
  EXPECT_EQ(found.log_sum_exp[0], -INFINITY);
}

// Query heads 0 to 2 belong to KV head 0, 3 to 5 to KV head 1.
TEST(ReferenceAttention, HeadsOfAGroupShareTheirKvHead) {
  reference::DecodedList list{.kv_heads = 2, .head_dim = 1, .tokens = 1};
  list.keys = {1, 1};
  list.values = {10, 20};
  const std::uint16_t query[6] = {};
  const Queries queries{.elements = query, .heads = 6, .token_stride = 6, .head_stride = 1};
  EXPECT_EQ(reference::attention(queries, {&list, 1}, 1).outputs,
            (std::vector<double>{10, 10, 10, 20, 20, 20}));
}

TEST(ReferenceAttention, ListsAreOneSequence) {
  const MadeList whole = make_list({16, 2, 64, both(fp16())}, 48, 1);
  MadeList front = whole, back = whole;
  front.tokens = 32;
  back.tokens = 16;
  front.addresses.resize(2);
  back.addresses.erase(back.addresses.begin(), back.addresses.begin() + 2);
  const MadeQueries queries = make_queries(2, 4, 64, 1, 2);
  const std::vector one{reference::decode_list(whole.list())};
  const std::vector two{reference::decode_list(front.list()), reference::decode_list(back.list())};
  const auto a = reference::attention(queries.queries(), one, 64);
  const auto b = reference::attention(queries.queries(), two, 64);
  EXPECT_EQ(a.outputs, b.outputs);
  EXPECT_EQ(a.probabilities, b.probabilities);
}

}  // namespace
}  // namespace modalkv
