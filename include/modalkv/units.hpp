// Units of every quantity in modalkv. Names carry the unit last: `step_ns`, `budget_bytes`.
#pragma once

#include <cstdint>

namespace modalkv {

using Nanos = std::int64_t;   ///< time or duration, nanoseconds
using Bytes = std::int64_t;   ///< signed, so that a difference of sizes is one too
using Tokens = std::int64_t;  ///< tokens of a sequence or a batch, all layers alike

inline constexpr Nanos kMicrosecond = 1'000;
inline constexpr Nanos kMillisecond = 1'000'000;
inline constexpr Nanos kSecond = 1'000'000'000;

inline constexpr Bytes kKiB = 1024;
inline constexpr Bytes kMiB = 1024 * kKiB;
inline constexpr Bytes kGiB = 1024 * kMiB;

/// Smallest multiple of `step` (> 0) that is not below `value` (>= 0).
constexpr std::int64_t round_up(std::int64_t value, std::int64_t step) {
  return (value + step - 1) / step * step;
}

constexpr std::int64_t divide_up(std::int64_t value, std::int64_t by) {
  return (value + by - 1) / by;
}

}  // namespace modalkv
