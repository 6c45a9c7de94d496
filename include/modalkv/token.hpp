// What a sequence is made of: segments, each a maximal run of tokens of one class.
#pragma once

#include <array>
#include <compare>
#include <cstdint>
#include <string_view>

#include "modalkv/units.hpp"

namespace modalkv {

/// Where a token came from. Generated tokens are text.
enum class TokenClass : std::uint8_t { text, image, video, audio };

inline constexpr int kTokenClasses = 4;

constexpr std::string_view name(TokenClass token_class) {
  constexpr std::string_view names[] = {"text", "image", "video", "audio"};
  return names[static_cast<std::uint8_t>(token_class)];
}

/// Tokens that an encoder made from pixels.
constexpr bool is_visual(TokenClass token_class) {
  return token_class == TokenClass::image || token_class == TokenClass::video;
}

/// Identity of content: 256 bits, never truncated. All zero: unique, shared with nobody.
/// Two segments may share KV only where their ids *and all ids before them* are equal.
struct ContentId {
  std::array<std::uint64_t, 4> words{};

  constexpr bool is_unique() const { return (words[0] | words[1] | words[2] | words[3]) == 0; }
  friend constexpr auto operator<=>(const ContentId&, const ContentId&) = default;
};

/// How little precision may do for a segment's KV.
enum class PrecisionFloor : std::uint8_t {
  policy,  ///< as the policy permits
  high,    ///< never compressed
};

struct Segment {
  TokenClass token_class = TokenClass::text;
  Tokens tokens = 0;
  ContentId content{};
  PrecisionFloor floor = PrecisionFloor::policy;

  friend constexpr bool operator==(const Segment&, const Segment&) = default;
};

}  // namespace modalkv
