#include "runtime/token_choice.hpp"

#include <algorithm>

#include "scheduler/selection.hpp"

namespace modalkv {

std::optional<TokenChoice> TokenChoice::of(const PrecisionPolicy& policy,
                                           std::span<const Segment> prompt, int layers,
                                           int chosen_layers) {
  const bool chooses =
      policy.selection == Selection::text_centric || policy.selection == Selection::image_centric;
  if (!chooses || policy.keep >= 1 || !policy.visual_low || chosen_layers == 0) return {};
  TokenChoice choice;
  std::vector<bool> eligible;
  for (const Segment& segment : prompt) {
    const Tokens begin = choice.prompt_tokens_;
    choice.prompt_tokens_ += segment.tokens;
    if (!is_visual(segment.token_class)) continue;
    for (Tokens token = begin; token < choice.prompt_tokens_; ++token) {
      choice.visual_.push_back(token);
      // The first one of an image is kept anyway, and one that is never compressed needs no copy.
      eligible.push_back(token > begin && segment.floor != PrecisionFloor::high);
    }
    choice.probes_begin_ = choice.prompt_tokens_;
  }
  if (choice.visual_.empty() || choice.probes_begin_ == choice.prompt_tokens_) return {};
  choice.prompt_.assign(prompt.begin(), prompt.end());
  choice.layers_.resize(static_cast<std::size_t>(layers));
  choice.chosen_layers_ = choice.open_layers_ = chosen_layers;
  choice.most_ = static_cast<Tokens>(choice.best(policy, {}, eligible).size());
  if (choice.most_ == 0) return {};
  return choice;
}

ProbeRows TokenChoice::probes(int layer, Tokens begin, Tokens end) const {
  const Layer& at = layers_[static_cast<std::size_t>(layer)];
  ProbeRows rows{std::max({begin, probes_begin_, at.scored_until}), std::min(end, prompt_tokens_)};
  if (at.closed || rows.end < rows.begin) rows.end = rows.begin;
  return rows;
}

void TokenChoice::add(int layer, ProbeRows rows, Tokens first, std::span<const float> scores) {
  std::vector<Score>& all = layers_[static_cast<std::size_t>(layer)].scores;
  all.resize(visual_.size());
  const auto weight = static_cast<float>(rows.count());
  for (std::size_t i = 0; i < scores.size(); ++i) {
    Score& score = all[static_cast<std::size_t>(first) + i];
    score.mass += scores[i] * weight;
    score.rows += weight;
  }
}

void TokenChoice::count(int layer, ProbeRows rows) {
  Layer& at = layers_[static_cast<std::size_t>(layer)];
  at.rows += rows.count();
  at.scored_until = rows.end;
}

bool TokenChoice::close(int layer) {
  Layer& at = layers_[static_cast<std::size_t>(layer)];
  if (at.closed) return false;
  at.closed = true;
  return --open_layers_ == 0;
}

bool TokenChoice::is_informed() const {
  return std::all_of(layers_.begin(), layers_.end(),
                     [](const Layer& layer) { return !layer.closed || layer.rows > 0; });
}

void TokenChoice::choose(const PrecisionPolicy& policy, const std::vector<bool>& eligible) {
  auto count = static_cast<std::size_t>(most_);
  for (Layer& layer : layers_) {
    if (!layer.closed) continue;
    layer.tokens = best(policy, layer, eligible);
    count = std::min(count, layer.tokens.size());
  }
  for (Layer& layer : layers_) {
    if (!layer.closed) continue;
    layer.tokens.resize(count);
    std::sort(layer.tokens.begin(), layer.tokens.end());
  }
  chosen_ = static_cast<Tokens>(count);
}

void TokenChoice::begin_anew() {
  layers_.assign(layers_.size(), {});
  open_layers_ = chosen_layers_;
  chosen_ = 0;
}

// Tokens of the sequence that are eligible and in the budget, those of the highest score first.
std::vector<Tokens> TokenChoice::best(const PrecisionPolicy& policy, const Layer& layer,
                                      const std::vector<bool>& eligible) const {
  std::vector<float> scores(visual_.size());
  for (std::size_t i = 0; i < layer.scores.size(); ++i)
    if (layer.scores[i].rows > 0) scores[i] = layer.scores[i].mass / layer.scores[i].rows;
  for (std::size_t i = 0; i < scores.size(); ++i)
    if (!eligible[i]) scores[i] = -1;  // the budget goes to others
  const std::vector<Permission> permissions = select_tokens(policy, prompt_, scores);
  std::vector<std::size_t> kept;
  for (std::size_t i = 0; i < visual_.size(); ++i)
    if (eligible[i] && permissions[static_cast<std::size_t>(visual_[i])] == Permission::high_only)
      kept.push_back(i);
  std::stable_sort(kept.begin(), kept.end(),
                   [&](std::size_t a, std::size_t b) { return scores[a] > scores[b]; });
  std::vector<Tokens> tokens;
  for (const std::size_t i : kept) tokens.push_back(visual_[i]);
  return tokens;
}

}  // namespace modalkv
