// What benchmarks of kernels share: made-up numbers, and what memory does for reading.
#pragma once

#include <benchmark/benchmark.h>

#include <cstddef>
#include <cstdint>
#include <random>
#include <vector>

#include "modalkv/units.hpp"

namespace modalkv {

/// Normal FP16 numbers between 2^-5 and 2^2.
inline std::vector<std::uint16_t> random_fp16(std::int64_t count) {
  std::mt19937 random(1);
  std::vector<std::uint16_t> elements(static_cast<std::size_t>(count));
  for (std::uint16_t& element : elements) {
    const auto number = static_cast<std::uint32_t>(random());
    element = static_cast<std::uint16_t>((0x2800 + number % 0x1c00) | (number >> 16 & 0x8000));
  }
  return elements;
}

inline void read_ceiling(benchmark::State& state, Bytes bytes) {
  const std::vector<std::uint64_t> words(static_cast<std::size_t>(bytes / 8), 3);
  for (auto _ : state) {
    std::uint64_t sums[16] = {};
    for (std::size_t i = 0; i < words.size(); i += 16)
      for (std::size_t j = 0; j < 16; ++j) sums[j] |= words[i + j];
    benchmark::DoNotOptimize(sums);
  }
  state.SetBytesProcessed(state.iterations() * bytes);
}

}  // namespace modalkv
