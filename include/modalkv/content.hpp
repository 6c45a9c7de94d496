// Who may share KV: a segment's content behind everything before it, as one 256-bit identity.
#pragma once

#include <array>
#include <compare>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "modalkv/token.hpp"

namespace modalkv {

/// Identity of the KV of a segment: of its content and of all content before it. 256 bits of
/// SHA-256, never truncated; compare all of them. All zero: the empty prefix.
struct PrefixId {
  std::array<std::uint64_t, 4> words{};

  friend constexpr auto operator<=>(const PrefixId&, const PrefixId&) = default;
};

// All below are pure, safe on every thread, the same on every machine, and throw Error where the
// system's cryptography fails.

/// Content id of text: of its token ids, in order. Never unique, not even of no tokens.
ContentId content_of_tokens(std::span<const std::int32_t> token_ids);

/// Identity of `segment` behind `before`; nothing where its content is unique, and then nothing
/// behind it has an identity either.
///
/// `kv_tag` names whatever else makes KV of the same tokens differ: model and weights, adapter,
/// how this segment's KV is stored. Any bytes; equal tags mean interchangeable KV.
///
/// SHA-256 of "modalkv.prefix.1", before (32 bytes), content (32), class (1), tokens (8), length of
/// kv_tag (8), kv_tag. Numbers and words of ids are little-endian.
std::optional<PrefixId> chain(const PrefixId& before, const Segment& segment,
                              std::string_view kv_tag);

/// Identities of the leading segments, up to the first unique one: [shareable segments], at most
/// as many as `segments`.
std::vector<PrefixId> chain(std::span<const Segment> segments, std::string_view kv_tag);

}  // namespace modalkv
