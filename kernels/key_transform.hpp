// What is done to a key of fewer than 16 bits before it is quantized, and undone after: the known
// bias is subtracted, then blocks are rotated.
#pragma once

#include <array>
#include <span>

#include "kernels/hadamard.hpp"
#include "kernels/page_codec.hpp"

namespace modalkv {

/// Borrows its arguments.
class KeyTransform {
 public:
  KeyTransform(const PageShape& shape, const KnownBias& known) : shape_(shape), known_(known) {
    if (payload_bits(shape.format.key.number) == 16) known_ = {};
  }

  bool changes() const { return known_.bias != nullptr || shape_.format.key_rotation > 0; }

  void apply(int head, Tokens token, std::span<float> key) const {
    if (known_.bias != nullptr) {
      std::array<float, kMaxHeadDim> bias;
      rotated_bias(*known_.bias, head, position(token), bias);
      for (std::size_t i = 0; i < key.size(); ++i) key[i] -= bias[i];
    }
    rotate(key);
  }

  void undo(int head, Tokens token, std::span<float> key) const {
    rotate(key);
    if (known_.bias == nullptr) return;
    std::array<float, kMaxHeadDim> bias;
    rotated_bias(*known_.bias, head, position(token), bias);
    for (std::size_t i = 0; i < key.size(); ++i) key[i] += bias[i];
  }

 private:
  void rotate(std::span<float> key) const {
    if (shape_.format.key_rotation > 0) rotate_blocks(key, shape_.format.key_rotation);
  }
  const std::int32_t* position(Tokens token) const {
    return known_.positions.data() + token * known_.bias->sections.axes();
  }

  const PageShape& shape_;
  KnownBias known_;
};

}  // namespace modalkv
