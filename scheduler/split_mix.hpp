// The finalizer of SplitMix64 (Steele, Lea and Flood 2014): every bit of the result depends on
// every bit of the value. Not cryptographic.
#pragma once

#include <cstdint>

namespace modalkv {

constexpr std::uint64_t split_mix(std::uint64_t value) {
  value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9u;
  value = (value ^ (value >> 27)) * 0x94d049bb133111ebu;
  return value ^ (value >> 31);
}

}  // namespace modalkv
