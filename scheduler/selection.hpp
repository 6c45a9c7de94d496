// Token selection: which tokens of a sequence stay in high precision (design: text-centric
// selection; after DOI 10.1109/LCA.2025.3646170). Two views of one rule: `count` for planning,
// `select` for tokens.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "modalkv/policy.hpp"
#include "modalkv/token.hpp"

namespace modalkv {

/// What a policy may do with a token.
enum class Permission : std::uint8_t {
  high_only,   ///< in the high-precision budget
  text_low,    ///< may be stored in PrecisionPolicy::text_low
  visual_low,  ///< may be stored in PrecisionPolicy::visual_low
};

inline constexpr int kPermissions = 3;

/// How many tokens of a sequence have each permission. They add up to its tokens.
struct PermissionCounts {
  Tokens high_only = 0;
  Tokens text_low = 0;
  Tokens visual_low = 0;

  friend constexpr bool operator==(const PermissionCounts&, const PermissionCounts&) = default;
};

/// Tokens in the budget of a sequence of `tokens`: ceil(keep x tokens).
Tokens high_precision_budget(const PrecisionPolicy& policy, Tokens tokens);

/// Counts for a sequence of `text` and `visual` tokens. O(1): called for every sequence and step. A
/// permission whose format the policy lacks counts as `high_only`.
PermissionCounts count_permissions(const PrecisionPolicy& policy, Tokens text, Tokens visual);

/// One permission a token, in sequence order. The budget fills in the order: first tokens and the
/// first token of each visual segment, recent window, the policy's preferred class (text by
/// recency, visual tokens by score), then the other class. `visual_scores` has one value per visual
/// token in sequence order: accumulated, normalized attention from text probe queries behind the
/// images; equal scores prefer the earlier token. Throws Error where the number of scores does not
/// match.
std::vector<Permission> select_tokens(const PrecisionPolicy& policy,
                                      std::span<const Segment> segments,
                                      std::span<const float> visual_scores);

}  // namespace modalkv
