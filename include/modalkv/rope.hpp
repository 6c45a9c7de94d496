// Which position turns which pair of channels under rotary position embedding (RoPE, Su et al.
// 2021): channel i and channel i + head_dim / 2 of a head are a pair, turned by position times
// frequency i.
#pragma once

#include <array>
#include <cstdint>

namespace modalkv {

/// Pairs of each axis of a position, in order. All zero: positions are plain numbers. Multimodal
/// RoPE (Qwen2-VL, Wang et al. 2024) has three: time, height and width; 16, 24 and 24 pairs there.
struct RopeSections {
  std::array<std::int32_t, 3> pairs{};

  /// 32-bit numbers that a token's position consists of: 1 or 3.
  constexpr int axes() const { return pairs == std::array<std::int32_t, 3>{} ? 1 : 3; }
  /// The one that turns a pair.
  constexpr int axis(int pair) const {
    if (axes() == 1 || pair < pairs[0]) return 0;
    return pair < pairs[0] + pairs[1] ? 1 : 2;
  }
  friend constexpr bool operator==(const RopeSections&, const RopeSections&) = default;
};

constexpr bool fits(const RopeSections& sections, int head_dim) {
  const auto& pairs = sections.pairs;
  return sections.axes() == 1 || (pairs[0] >= 0 && pairs[1] >= 0 && pairs[2] >= 0 &&
                                  std::int64_t{pairs[0]} + pairs[1] + pairs[2] == head_dim / 2);
}

}  // namespace modalkv
