#include <gtest/gtest.h>

#include <set>

#include "tests/tools/profile/profile_text.hpp"

namespace modalkv {
namespace {

using nlohmann::json;

ModelGeometry parsed(const json& document) {
  return parse_model(document.dump(), "m.json");
}
std::string error_of(const json& document) {
  return modalkv::error_of([&] { parsed(document); });
}
json small_model() {
  return json::parse(R"({"name": "small", "layers": 2, "q_heads": 8, "kv_heads": 4,
    "head_dim": 64, "hidden": 512, "ffn": 1024, "vocabulary": 1000, "context_tokens": 4096,
    "image_rule": {"kind": "none"}})");
}

TEST(ModelJson, EveryFieldIsRead) {
  const ModelGeometry model = parsed(json::parse(R"({
    "name": "m", "note": {"anything": 1}, "layers": 2, "q_heads": 8, "kv_heads": 4, "head_dim": 64,
    "hidden": 512, "ffn": 1024, "experts": 16, "active_experts": 3, "vocabulary": 1000,
    "tied_embeddings": true, "context_tokens": 4096,
    "image_rule": {"kind": "tiles", "tokens_per_tile": 256, "tile_side_px": 448,
                   "max_tokens": 3328},
    "vision": {"layers": 5, "hidden": 320, "ffn": 640, "gated_ffn": true,
               "patches_per_token": 2.5, "attention_patches": 577}})"));
  EXPECT_EQ(model.name, "m");
  EXPECT_EQ(model.layers, 2);
  EXPECT_EQ(model.q_heads, 8);
  EXPECT_EQ(model.kv_heads, 4);
  EXPECT_EQ(model.head_dim, 64);
  EXPECT_EQ(model.hidden, 512);
  EXPECT_EQ(model.ffn, 1024);
  EXPECT_EQ(model.experts, 16);
  EXPECT_EQ(model.active_experts, 3);
  EXPECT_EQ(model.vocabulary, 1000);
  EXPECT_TRUE(model.tied_embeddings);
  EXPECT_EQ(model.context_tokens, 4096);
  EXPECT_EQ(model.image_rule.kind, ImageTokenRule::Kind::tiles);
  EXPECT_EQ(model.image_rule.tokens_per_unit, 256);
  EXPECT_EQ(model.image_rule.unit_side_px, 448);
  EXPECT_EQ(model.image_rule.max_tokens, 3328);
  EXPECT_EQ(model.vision.layers, 5);
  EXPECT_EQ(model.vision.hidden, 320);
  EXPECT_EQ(model.vision.ffn, 640);
  EXPECT_TRUE(model.vision.gated_ffn);
  EXPECT_EQ(model.vision.patches_per_token, 2.5);
  EXPECT_EQ(model.vision.attention_patches, 577);
}

TEST(ModelJson, WhatIsLeftOutIsDenseUntiedAndBlind) {
  const ModelGeometry model = parsed(small_model());
  EXPECT_EQ(model.experts, 0);
  EXPECT_EQ(model.active_experts, 0);
  EXPECT_FALSE(model.tied_embeddings);
  EXPECT_EQ(model.vision.layers, 0);
  EXPECT_EQ(model.image_rule.kind, ImageTokenRule::Kind::none);
}

TEST(ModelJson, ImageRulesCountTokens) {
  json document = small_model();
  const auto tokens = [&](const char* rule, double pixels) {
    document["image_rule"] = json::parse(rule);
    return image_tokens(parsed(document).image_rule, pixels);
  };
  EXPECT_EQ(tokens(R"({"kind": "none"})", 1e6), 0);
  EXPECT_EQ(tokens(R"({"kind": "fixed", "tokens_per_image": 576})", 10), 576);
  const char* pixels = R"({"kind": "pixels", "token_side_px": 28, "max_tokens": 1000})";
  EXPECT_EQ(tokens(pixels, 28 * 28 * 10), 10);
  EXPECT_EQ(tokens(pixels, 28 * 28 * 10 + 1), 11);
  EXPECT_EQ(tokens(pixels, 1e9), 1000);
  const char* tiles =
      R"({"kind": "tiles", "tokens_per_tile": 256, "tile_side_px": 448, "max_tokens": 1024})";
  EXPECT_EQ(tokens(tiles, 448 * 448 * 2), 512);
  EXPECT_EQ(tokens(tiles, 1e9), 1024);
}

TEST(ModelJson, EveryMemberOfEveryShippedModelIsNeededTypedAndBounded) {
  const std::set<std::string> optional{"experts", "tied_embeddings", "vision", "vision.gated_ffn",
                                       "vision.attention_patches"};
  for (const std::string& name : list_models()) {
    const json document = shipped_json("models", name);
    ASSERT_EQ(error_of(document), "no error") << name;
    for (const auto& member : members(document)) {
      const std::string key = key_of(member);
      const auto expect_error = [&](const json& changed) {
        const std::string error = error_of(changed);
        EXPECT_TRUE(error.starts_with("m.json: ")) << name << " " << key << "\n" << error;
        EXPECT_NE(error.find(key), std::string::npos) << name << " " << key << "\n" << error;
      };
      json changed = document;
      const json& value = document[member];
      if (!optional.contains(key)) {
        changed[member.parent_pointer()].erase(member.back());
        expect_error(changed);
        changed = document;
      }
      changed[member] = value.is_string() ? json(5) : json("five");
      expect_error(changed);
      if (!value.is_number()) continue;
      for (const json& bad : {json(-1), json(1e30), json(nullptr)}) {
        changed[member] = bad;
        expect_error(changed);
      }
    }
  }
}

TEST(ModelJson, UnknownKeysAreErrorsInEveryObject) {
  json document = shipped_json("models", "llava-1.5-7b");
  document["depth"] = 1;
  EXPECT_EQ(error_of(document), "m.json: unknown key 'depth'");
  for (const char* inner : {"vision", "image_rule"}) {
    document = shipped_json("models", "llava-1.5-7b");
    document[inner]["depth"] = 1;
    EXPECT_EQ(error_of(document), std::string("m.json: unknown key '") + inner + ".depth'");
  }
}

TEST(ModelJson, ContradictionsAreErrors) {
  json document = small_model();
  document["kv_heads"] = 3;
  EXPECT_EQ(error_of(document),
            "m.json: key 'kv_heads': found 3, expected a divisor of q_heads, 8");
  document = small_model();
  document["experts"] = 4;
  EXPECT_EQ(error_of(document), "m.json: key 'active_experts' is missing");
  document["active_experts"] = 5;
  EXPECT_EQ(error_of(document),
            "m.json: key 'active_experts': found 5, expected a whole number from 1 to 4");
  document = small_model();
  document["image_rule"]["kind"] = "frames";
  EXPECT_EQ(error_of(document),
            "m.json: key 'image_rule.kind': found \"frames\", expected none, fixed, pixels or "
            "tiles");
  EXPECT_EQ(error_of(json::array()), "m.json: the document: found array, expected an object");
}

}  // namespace
}  // namespace modalkv
