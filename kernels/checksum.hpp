// The checksum of a page: 64 bits, made of terms that can be summed in any order, so that SIMD
// lanes, threads of a GPU and a plain loop reach the same value in one pass.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace modalkv {

/// Sum over the 64-bit little-endian words w_i of mix(w_i + (i + 1) c), modulo 2^64, with the last
/// word filled up by zeros, plus mix of the length. `mix` is a bijection (the finalizer of
/// SplitMix64, Steele et al. 2014), so one changed word always changes the sum, and other damage
/// goes unseen once in 2^64. Not for adversaries. Allocates nothing; any alignment.
std::uint64_t checksum(std::span<const std::byte> bytes);

/// c, and the factors of mix: x ^= x >> 30, x *= first; x ^= x >> 27, x *= second; x ^= x >> 31.
inline constexpr std::uint64_t kChecksumStep = 0x9e3779b97f4a7c15;
inline constexpr std::uint64_t kChecksumFactors[] = {0xbf58476d1ce4e5b9, 0x94d049bb133111eb};

constexpr std::uint64_t checksum_mix(std::uint64_t x) {
  x = (x ^ (x >> 30)) * kChecksumFactors[0];
  x = (x ^ (x >> 27)) * kChecksumFactors[1];
  return x ^ (x >> 31);
}

}  // namespace modalkv
