#include "scheduler/selection.hpp"

#include <algorithm>
#include <numeric>
#include <string>

#include "modalkv/error.hpp"

namespace modalkv {
Tokens high_precision_budget(const PrecisionPolicy& policy, Tokens tokens) {
  // Rounded up, but 0.1 x 30 is 3, not the next double above it.
  const double exact = policy.keep * static_cast<double>(tokens) - 1e-9;
  const auto below = static_cast<Tokens>(exact);
  return std::min(tokens, below + (exact > static_cast<double>(below) ? 1 : 0));
}

PermissionCounts count_permissions(const PrecisionPolicy& policy, Tokens text, Tokens visual) {
  if (policy.selection == Selection::all) return {.high_only = text + visual};
  PermissionCounts counts{.high_only = 0, .text_low = text, .visual_low = visual};
  if (policy.selection != Selection::none) {
    // Pins and window are inside the budget. Whether such a token is text or visual is not known
    // from counts; they are taken as the preferred class, which differs by at most pins + window
    // tokens.
    const Tokens budget = high_precision_budget(policy, text + visual);
    const bool text_first = policy.selection == Selection::text_centric;
    Tokens& first = text_first ? counts.text_low : counts.visual_low;
    Tokens& second = text_first ? counts.visual_low : counts.text_low;
    const Tokens from_first = std::min(first, budget);
    first -= from_first;
    second -= std::min(second, budget - from_first);
  }
  if (!policy.text_low) counts.text_low = 0;
  if (!policy.visual_low) counts.visual_low = 0;
  counts.high_only = text + visual - counts.text_low - counts.visual_low;
  return counts;
}

std::vector<Permission> select_tokens(const PrecisionPolicy& policy,
                                      std::span<const Segment> segments,
                                      std::span<const float> visual_scores) {
  std::vector<bool> visual;
  std::vector<std::size_t> pins;
  for (const Segment& segment : segments) {
    if (is_visual(segment.token_class) && segment.tokens > 0) pins.push_back(visual.size());
    visual.insert(visual.end(), static_cast<std::size_t>(segment.tokens),
                  is_visual(segment.token_class));
  }
  const std::size_t tokens = visual.size();
  const auto visual_tokens =
      static_cast<std::size_t>(std::count(visual.begin(), visual.end(), true));
  if (visual_scores.size() != visual_tokens)
    throw Error("select_tokens: " + std::to_string(visual_scores.size()) + " scores for " +
                std::to_string(visual_tokens) + " visual tokens");

  std::vector<Permission> permissions(tokens, Permission::high_only);
  if (policy.selection == Selection::all) return permissions;
  for (std::size_t i = 0; i < tokens; ++i) {
    if (visual[i] && policy.visual_low) permissions[i] = Permission::visual_low;
    if (!visual[i] && policy.text_low) permissions[i] = Permission::text_low;
  }
  if (policy.selection == Selection::none) return permissions;

  // One order of filling; the budget takes its head.
  std::vector<std::size_t> text_by_recency, visual_by_score;
  for (std::size_t i = 0; i < tokens; ++i)
    (visual[i] ? visual_by_score : text_by_recency).push_back(i);
  std::reverse(text_by_recency.begin(), text_by_recency.end());
  std::vector<std::size_t> rank(visual_tokens);
  std::iota(rank.begin(), rank.end(), std::size_t{0});
  std::stable_sort(rank.begin(), rank.end(), [&](std::size_t a, std::size_t b) {
    return visual_scores[a] > visual_scores[b];
  });
  std::vector<std::size_t> best_visual;
  for (std::size_t r : rank) best_visual.push_back(visual_by_score[r]);

  std::vector<std::size_t> order;
  for (std::size_t i = 0; i < std::min(tokens, static_cast<std::size_t>(policy.pinned_tokens)); ++i)
    order.push_back(i);
  order.insert(order.end(), pins.begin(), pins.end());
  const std::size_t window = std::min(tokens, static_cast<std::size_t>(policy.window_tokens));
  for (std::size_t i = 0; i < window; ++i) order.push_back(tokens - 1 - i);
  const bool text_first = policy.selection == Selection::text_centric;
  const auto& first = text_first ? text_by_recency : best_visual;
  const auto& second = text_first ? best_visual : text_by_recency;
  order.insert(order.end(), first.begin(), first.end());
  order.insert(order.end(), second.begin(), second.end());

  auto budget = high_precision_budget(policy, static_cast<Tokens>(tokens));
  std::vector<bool> taken(tokens, false);
  for (std::size_t token : order) {
    if (budget == 0) break;
    if (taken[token]) continue;
    taken[token] = true;
    permissions[token] = Permission::high_only;
    --budget;
  }
  return permissions;
}

}  // namespace modalkv
