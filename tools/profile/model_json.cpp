#include <fmt/format.h>

#include "modalkv/error.hpp"
#include "tools/profile/json_object.hpp"
#include "tools/profile/profile.hpp"

namespace modalkv {
namespace {

constexpr std::int64_t kMostLayers = 1000;
constexpr std::int64_t kMostHeads = 1000;  // together with these, no sum of bytes overflows
constexpr std::int64_t kWidest = 500'000;
constexpr std::int64_t kMostTokens = 100'000'000;

int integer(JsonObject& object, std::string_view key, std::int64_t low, std::int64_t high) {
  return static_cast<int>(object.integer(key, low, high));
}

ImageTokenRule image_rule(JsonObject object) {
  ImageTokenRule rule;
  const std::string kind = object.text("kind");
  using Kind = ImageTokenRule::Kind;
  if (kind == "none") {
    rule.kind = Kind::none;
  } else if (kind == "fixed") {
    rule.kind = Kind::fixed;
    rule.tokens_per_unit = object.integer("tokens_per_image", 1, kMostTokens);
    rule.max_tokens = rule.tokens_per_unit;
  } else if (kind == "pixels" || kind == "tiles") {
    rule.kind = kind == "pixels" ? Kind::pixels : Kind::tiles;
    rule.tokens_per_unit = kind == "pixels" ? 1 : object.integer("tokens_per_tile", 1, kMostTokens);
    rule.unit_side_px =
        integer(object, kind == "pixels" ? "token_side_px" : "tile_side_px", 1, kWidest);
    rule.max_tokens = object.integer("max_tokens", rule.tokens_per_unit, kMostTokens);
  } else {
    object.fail("kind", "none, fixed, pixels or tiles");
  }
  object.finish();
  return rule;
}

VisionEncoder vision_encoder(JsonObject object) {
  VisionEncoder vision;
  vision.layers = integer(object, "layers", 1, kMostLayers);
  vision.hidden = integer(object, "hidden", 1, kWidest);
  vision.ffn = integer(object, "ffn", 1, kWidest);
  vision.gated_ffn = object.boolean("gated_ffn", false);
  vision.patches_per_token = object.number("patches_per_token", 0.01, 10'000);
  vision.attention_patches =
      static_cast<int>(object.integer_or("attention_patches", 0, kMostTokens, 0));
  object.finish();
  return vision;
}

}  // namespace

ModelGeometry parse_model(std::string_view text, std::string_view file) {
  const nlohmann::json document = parse_json(text, file);
  JsonObject object(document, std::string(file));
  object.ignore("note");
  ModelGeometry model;
  model.name = object.text("name");
  model.layers = integer(object, "layers", 1, kMostLayers);
  model.q_heads = integer(object, "q_heads", 1, kMostHeads);
  model.kv_heads = integer(object, "kv_heads", 1, kMostHeads);
  model.head_dim = integer(object, "head_dim", 8, 1024);
  model.hidden = integer(object, "hidden", 1, kWidest);
  model.ffn = integer(object, "ffn", 1, kWidest);
  model.experts = static_cast<int>(object.integer_or("experts", 0, kMostHeads, 0));
  model.active_experts =
      model.experts > 0 ? integer(object, "active_experts", 1, model.experts) : 0;
  model.vocabulary = integer(object, "vocabulary", 1, kMostTokens);
  model.tied_embeddings = object.boolean("tied_embeddings", false);
  model.context_tokens = object.integer("context_tokens", 1, kMostTokens);
  model.image_rule = image_rule(object.object("image_rule"));
  if (object.has("vision")) model.vision = vision_encoder(object.object("vision"));
  object.finish();
  if (model.q_heads % model.kv_heads != 0)
    object.fail("kv_heads", fmt::format("a divisor of q_heads, {}", model.q_heads));
  return model;
}

}  // namespace modalkv
