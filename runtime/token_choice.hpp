// Which visual tokens a sequence keeps in high precision: scores by the prompt's text behind the
// last of them, layer by layer, and once a layer has seen the whole prompt, the policy's choice.
#pragma once

#include <cstddef>
#include <optional>
#include <span>
#include <vector>

#include "modalkv/policy.hpp"
#include "modalkv/token.hpp"

namespace modalkv {

/// Rows of a sequence, by the tokens that they are queries of.
struct ProbeRows {
  Tokens begin = 0, end = 0;

  Tokens count() const { return end - begin; }
};

class TokenChoice {
 public:
  /// In `chosen_layers` of the model's. Nothing where there is nothing to choose: the policy keeps
  /// all or none, no text is behind the last visual token, or the budget is spent before it comes
  /// to visual tokens.
  static std::optional<TokenChoice> of(const PrecisionPolicy& policy,
                                       std::span<const Segment> prompt, int layers,
                                       int chosen_layers);

  Tokens prompt_tokens() const { return prompt_tokens_; }
  /// Visual tokens that the budget has room for, beside the first ones of images.
  Tokens most() const { return most_; }

  /// Those of the rows [begin, end) that are to score at a layer: the prompt's text behind the last
  /// visual token, each row once.
  ProbeRows probes(int layer, Tokens begin, Tokens end) const;
  /// Mean probabilities over `rows` of visual tokens from the `first`-th of the sequence on.
  void add(int layer, ProbeRows rows, Tokens first, std::span<const float> scores);
  /// All scores of these rows have been added.
  void count(int layer, ProbeRows rows);
  /// The layer has seen the whole prompt. True: it was the last one.
  bool close(int layer);
  bool is_closed(int layer) const { return layers_[static_cast<std::size_t>(layer)].closed; }
  /// Whether rows have scored in every layer that is closed.
  bool is_informed() const;

  /// In every layer that is closed, of the visual tokens that are still eligible (one flag each, in
  /// order), as many as have the budget in all of them.
  void choose(const PrecisionPolicy& policy, const std::vector<bool>& eligible);
  /// What was chosen: tokens of the sequence, ascending; as many in all layers that are closed.
  std::span<const Tokens> tokens(int layer) const {
    return layers_[static_cast<std::size_t>(layer)].tokens;
  }
  Tokens chosen() const { return chosen_; }

  /// As if nothing had scored yet.
  void begin_anew();

 private:
  struct Score {
    float mass = 0;  // mean probabilities times rows
    float rows = 0;
  };
  struct Layer {
    bool closed = false;
    Tokens scored_until = 0;      // rows before it have scored, or never will
    Tokens rows = 0;              // that have scored
    std::vector<Score> scores{};  // of each visual token
    std::vector<Tokens> tokens{};
  };

  TokenChoice() = default;
  std::vector<Tokens> best(const PrecisionPolicy& policy, const Layer& layer,
                           const std::vector<bool>& eligible) const;

  std::vector<Segment> prompt_;
  std::vector<Tokens> visual_;  // tokens of the sequence
  Tokens prompt_tokens_ = 0, probes_begin_ = 0, most_ = 0, chosen_ = 0;
  int chosen_layers_ = 0, open_layers_ = 0;
  std::vector<Layer> layers_;
};

}  // namespace modalkv
