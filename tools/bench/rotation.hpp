// How many copies of its data a measurement goes through in turn.
#pragma once

#include <algorithm>

#include "modalkv/units.hpp"

namespace modalkv {

/// All copies together exceed the last-level caches by this factor, so that every run reads memory.
inline constexpr int kRotationCaches = 4;
/// Where caches are small or unknown.
inline constexpr Bytes kLeastRotationBytes = 256 * kMiB;
/// A reading of a ceiling covers as much as a run within these bounds: long enough to time, and
/// short enough to take often.
inline constexpr Bytes kLeastPassBytes = 64 * kMiB, kMostPassBytes = 256 * kMiB;

/// Copies of what takes `bytes` (> 0); at least two.
constexpr int rotation_copies(Bytes bytes, Bytes last_level_cache_bytes) {
  const Bytes wanted = std::max(kRotationCaches * last_level_cache_bytes, kLeastRotationBytes);
  return static_cast<int>(std::max<Bytes>(2, divide_up(wanted, bytes)));
}

constexpr Bytes ceiling_pass_bytes(Bytes bytes_per_run) {
  return std::clamp(bytes_per_run, kLeastPassBytes, kMostPassBytes);
}

}  // namespace modalkv
