#include "scheduler/policies.hpp"

#include <gtest/gtest.h>

#include <set>
#include <string>

namespace modalkv {
namespace {

TEST(Policies, AreFoundByTheirOwnNames) {
  std::set<std::string> names;
  for (const PrecisionPolicy& policy : builtin_policies()) {
    EXPECT_TRUE(names.insert(policy.name).second) << policy.name << " twice";
    EXPECT_FALSE(policy.summary.empty());
    const auto found = find_policy(policy.name);
    ASSERT_TRUE(found);
    EXPECT_EQ(found->summary, policy.summary);
  }
  EXPECT_FALSE(find_policy("text"));
  EXPECT_FALSE(find_policy(""));
}

TEST(Policies, SixteenBitPoliciesCompressNothing) {
  const struct {
    const char* name;
    bool resident, streamed;
  } kExpected[] = {
      {"fp16-resident", true, false}, {"fp16-stream", false, true}, {"fp16-offload", true, true}};
  for (const auto& expected : kExpected) {
    const PrecisionPolicy policy = find_policy(expected.name).value();
    EXPECT_EQ(policy.selection, Selection::all);
    EXPECT_FALSE(policy.text_low || policy.visual_low) << expected.name;
    EXPECT_EQ(policy.places.resident, expected.resident) << expected.name;
    EXPECT_EQ(policy.places.streamed, expected.streamed) << expected.name;
    EXPECT_FALSE(policy.places.cpu) << expected.name;
  }
}

// What a token is stored in while there is room loses nothing, in every policy.
TEST(Policies, EveryPolicyStartsInSixteenBits) {
  for (const PrecisionPolicy& policy : builtin_policies()) {
    EXPECT_TRUE(is_16bit(policy.high)) << policy.name;
    EXPECT_TRUE(policy.places.resident || policy.places.streamed || policy.places.cpu);
  }
}

TEST(Policies, TextCentricKeepsTextAtEightBitsOrMore) {
  for (const char* name : {"text-centric", "text-centric-int2"}) {
    const PrecisionPolicy policy = find_policy(name).value();
    EXPECT_EQ(policy.selection, Selection::text_centric);
    EXPECT_DOUBLE_EQ(policy.keep, 0.10);
    ASSERT_TRUE(policy.text_low && policy.visual_low);
    EXPECT_GE(payload_bits(policy.text_low->key.number), 8);
    EXPECT_GE(payload_bits(policy.text_low->value.number), 8);
    EXPECT_LT(payload_bits(policy.visual_low->key.number), 8);
  }
}

TEST(Policies, ImageCentricIsTheOppositeSplit) {
  const PrecisionPolicy text = find_policy("text-centric").value();
  const PrecisionPolicy image = find_policy("image-centric").value();
  EXPECT_EQ(image.selection, Selection::image_centric);
  EXPECT_EQ(image.keep, text.keep);
  EXPECT_EQ(image.text_low, text.visual_low);
  EXPECT_EQ(image.visual_low, text.text_low);
}

TEST(Policies, UniformTreatsEveryTokenAlike) {
  for (const auto& [name, bytes] : {std::pair{"uniform-int8", 264}, {"uniform-int4", 136}}) {
    const PrecisionPolicy policy = find_policy(name).value();
    EXPECT_EQ(policy.selection, Selection::none);
    EXPECT_EQ(policy.text_low, policy.visual_low);
    ASSERT_TRUE(policy.text_low);
    EXPECT_EQ(token_head_bytes(*policy.text_low, 128), bytes) << name;
  }
}

}  // namespace
}  // namespace modalkv
