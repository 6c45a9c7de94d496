// Rotary position embedding of what is known beside the page: a key bias. Every cosine is computed
// by the operations written here, so that each processor subtracts the same bytes.
#pragma once

#include <bit>
#include <cstdint>
#include <span>

#include "modalkv/rope.hpp"

namespace modalkv {

/// The frequencies of Su et al., base^(-2 i / head_dim) for each pair of channels, in binary32 as
/// engines hold them. An engine that scales its frequencies (YaRN, Llama 3) gives its own instead.
void fill_rope_frequencies(double base, std::span<float> frequencies);

struct Rotation {
  float cosine = 1, sine = 0;
};

/// By position * frequency radians. For less than 2^26 quarter turns within 1e-7 of the exact
/// values; deterministic for all.
///
/// In binary64: the angle is reduced by quarter turns (Cody and Waite 1980; pi / 2 in three parts,
/// so that the first two products are exact), the rest goes through its Taylor series.
constexpr Rotation rotation(std::int32_t position, float frequency) {
  constexpr double kToInteger = 0x1.8p52;  // what is added to it ends as an integer, ties to even
  const double angle = static_cast<double>(position) * static_cast<double>(frequency);
  const double shifted = angle * 0x1.45f306dc9c883p-1 + kToInteger;
  const double quarters = shifted - kToInteger;
  const double x = ((angle - quarters * 0x1.921fb54p+0) - quarters * 0x1.10b461p-30) -
                   quarters * 0x1.a62633145c06ep-58;
  const double square = x * x;
  double sine = -1.0 / 39916800;
  sine = sine * square + 1.0 / 362880;
  sine = sine * square - 1.0 / 5040;
  sine = sine * square + 1.0 / 120;
  sine = sine * square - 1.0 / 6;
  sine = sine * square * x + x;
  double cosine = 1.0 / 479001600;
  cosine = cosine * square - 1.0 / 3628800;
  cosine = cosine * square + 1.0 / 40320;
  cosine = cosine * square - 1.0 / 720;
  cosine = cosine * square + 1.0 / 24;
  cosine = cosine * square - 0.5;
  cosine = cosine * square + 1.0;
  // Quarter turns modulo 4 say which is which, and the signs.
  const auto quarter = std::bit_cast<std::uint64_t>(shifted) & 3;
  const auto cosine_bits = std::bit_cast<std::uint64_t>((quarter & 1) != 0 ? sine : cosine);
  const auto sine_bits = std::bit_cast<std::uint64_t>((quarter & 1) != 0 ? cosine : sine);
  return {static_cast<float>(std::bit_cast<double>(cosine_bits ^ ((quarter + 1) & 2) << 62)),
          static_cast<float>(std::bit_cast<double>(sine_bits ^ (quarter & 2) << 62))};
}

}  // namespace modalkv
