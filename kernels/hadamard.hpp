// Block Hadamard rotation of keys: outlier channels are spread over their block before they are
// quantized (QuIP#, Tseng et al. 2024; QuaRot, Ashkboos et al. 2024). It is orthogonal and its own
// inverse, so queries rotated alike have the same products with the keys.
#pragma once

#include <span>

namespace modalkv {

/// The factor that makes a Hadamard matrix of `order` (16 to 128) orthogonal.
constexpr float hadamard_scale(int order) {
  return order == 16 ? 0.25f : order == 32 ? 0.176776695f : order == 64 ? 0.125f : 0.0883883476f;
}

/// Rotates each block of `order` consecutive elements in place. In binary32: butterflies (a + b,
/// a - b) of elements 1, then 2, 4, ... order / 2 apart, then one product with the factor. Of a
/// value of some floats this rotates each lane on its own.
template <typename Value>
void rotate_blocks(std::span<Value> elements, int order) {
  const auto block = static_cast<std::size_t>(order);
  for (std::size_t apart = 1; apart < block; apart *= 2)
    for (std::size_t i = 0; i < elements.size(); i += 2 * apart)
      for (std::size_t j = i; j < i + apart; ++j) {
        const Value a = elements[j], b = elements[j + apart];
        elements[j] = a + b;
        elements[j + apart] = a - b;
      }
  const float scale = hadamard_scale(order);
  for (Value& element : elements) element = element * scale;
}

}  // namespace modalkv
