// Made-up K, V and queries: normally distributed 16-bit elements.
#pragma once

#include <cstddef>
#include <cstdint>
#include <random>
#include <span>
#include <vector>

#include "kernels/number.hpp"
#include "modalkv/format.hpp"

namespace modalkv {

inline std::vector<std::uint16_t> random_elements(std::size_t count, NumberFormat number,
                                                  float deviation, std::mt19937_64& random) {
  std::normal_distribution<float> normal(0, deviation);
  std::vector<std::uint16_t> elements(count);
  for (std::uint16_t& element : elements)
    element = number == NumberFormat::bf16 ? to_bf16(normal(random)) : to_fp16(normal(random));
  return elements;
}

}  // namespace modalkv
