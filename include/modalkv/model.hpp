// Geometry of a multimodal model: what its layers cost and what its images become.
#pragma once

#include <algorithm>
#include <cmath>
#include <string>

#include "modalkv/format.hpp"
#include "modalkv/units.hpp"

namespace modalkv {

/// How many tokens an image becomes.
struct ImageTokenRule {
  enum class Kind : std::uint8_t {
    none,    ///< a text model
    fixed,   ///< `tokens_per_unit` an image, whatever its size
    pixels,  ///< one token per `unit_side_px` squared
    tiles,   ///< `tokens_per_unit` per tile of `unit_side_px` squared
  };
  Kind kind = Kind::none;
  Tokens tokens_per_unit = 1;
  int unit_side_px = 0;
  Tokens max_tokens = 0;  ///< of one image
};

/// Tokens of one image of `pixels` in all; at least one unit, at most `max_tokens`.
inline Tokens image_tokens(const ImageTokenRule& rule, double pixels) {
  using Kind = ImageTokenRule::Kind;
  if (rule.kind == Kind::none) return 0;
  if (rule.kind == Kind::fixed) return rule.tokens_per_unit;
  const double unit_px = static_cast<double>(rule.unit_side_px) * rule.unit_side_px;
  const auto units = std::max(1.0, std::ceil(pixels / unit_px));
  const double tokens = units * static_cast<double>(rule.tokens_per_unit);
  return static_cast<Tokens>(std::min(tokens, static_cast<double>(rule.max_tokens)));
}

/// A vision transformer. `layers == 0`: the model has none.
struct VisionEncoder {
  int layers = 0;
  int hidden = 0;
  int ffn = 0;
  bool gated_ffn = false;
  double patches_per_token = 1;  ///< patches that the encoder reads for one token of the LLM
  int attention_patches = 0;     ///< patches that attend to each other: a tile, a window; 0: all
};

struct ModelGeometry {
  std::string name;
  int layers = 0;
  int q_heads = 0;
  int kv_heads = 0;
  int head_dim = 128;
  int hidden = 0;
  int ffn = 0;             ///< of one expert where `experts` > 0; gated (three matrices)
  int experts = 0;         ///< 0: dense
  int active_experts = 0;  ///< of a token
  int vocabulary = 0;
  bool tied_embeddings = false;
  Tokens context_tokens = 0;
  ImageTokenRule image_rule{};
  VisionEncoder vision{};
};

/// What each of `ranks` tensor-parallel ranks holds and computes: its share of heads, FFN and
/// vocabulary.
inline ModelGeometry rank_share(ModelGeometry model, int ranks) {
  model.q_heads = std::max(1, model.q_heads / ranks);
  model.kv_heads = std::max(1, model.kv_heads / ranks);
  model.ffn = std::max(1, model.ffn / ranks);
  model.vocabulary = std::max(1, model.vocabulary / ranks);
  return model;
}

/// KV bytes of one token in one layer, all KV heads.
constexpr Bytes kv_bytes_per_token_layer(const ModelGeometry& model, const KvFormat& format) {
  return model.kv_heads * token_head_bytes(format, model.head_dim);
}

/// KV bytes of one token in all layers.
constexpr Bytes kv_bytes_per_token(const ModelGeometry& model, const KvFormat& format) {
  return model.layers * kv_bytes_per_token_layer(model, format);
}

/// Parameters of one decoder layer outside its FFN.
constexpr double attention_parameters(const ModelGeometry& model) {
  const double q = static_cast<double>(model.q_heads) * model.head_dim;
  const double kv = static_cast<double>(model.kv_heads) * model.head_dim;
  return model.hidden * (q + 2 * kv) + q * model.hidden;
}

/// Parameters of one FFN, or of one expert.
constexpr double ffn_parameters(const ModelGeometry& model) {
  return 3.0 * model.hidden * model.ffn;
}

constexpr double vision_parameters(const VisionEncoder& vision) {
  const double h = vision.hidden;
  return vision.layers * (4.0 * h * h + (vision.gated_ffn ? 3.0 : 2.0) * h * vision.ffn);
}

/// Weights in 16 bits, embeddings and vision encoder included.
constexpr Bytes weight_bytes(const ModelGeometry& model) {
  const double ffns = model.experts > 0 ? model.experts : 1;
  const double decoder =
      model.layers * (attention_parameters(model) + ffns * ffn_parameters(model));
  const double embeddings =
      (model.tied_embeddings ? 1.0 : 2.0) * model.vocabulary * static_cast<double>(model.hidden);
  return static_cast<Bytes>(2.0 * (decoder + embeddings + vision_parameters(model.vision)));
}

}  // namespace modalkv
