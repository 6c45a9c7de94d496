#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <type_traits>
#include <utility>

#include "kernels/checksum.hpp"
#include "kernels/encode_targets.hpp"
#include "kernels/hadamard.hpp"
#include "kernels/quantizer.hpp"

namespace modalkv {
namespace {

// Vectors of 128 bits, which every 64-bit processor has.
struct Machine {
  static constexpr int kWidth = 4;
  using Floats [[gnu::vector_size(16)]] = float;
  using Words [[gnu::vector_size(16)]] = std::uint32_t;
  using Halves [[gnu::vector_size(8)]] = std::uint16_t;

  static Floats lesser(Floats a, Floats b) { return a < b ? a : b; }
  static Floats greater(Floats a, Floats b) { return a > b ? a : b; }

  static Floats add_poison(Floats poison, Floats value) { return poison + (value - value); }
  static Floats from_fp16(const std::uint16_t* from) {
    Halves halves;
    std::memcpy(&halves, from, sizeof(halves));
    const Words code = __builtin_convertvector(halves, Words);
    const Words sign = (code & 0x8000) << 16;
    // The exponent moves by the difference of the biases; infinity and NaN get the largest.
    const Words moved =
        __builtin_bit_cast(Words, __builtin_bit_cast(Floats, (code & 0x7fff) << 13) * 0x1p112f);
    const Words special = __builtin_bit_cast(Words, (code & 0x7c00) == 0x7c00) & 0x7f800000;
    return __builtin_bit_cast(Floats, moved | sign | special);
  }

  static Words to_fp16(Floats a) {
    const Words bits = __builtin_bit_cast(Words, a);
    const Words magnitude = bits & 0x7fffffff;
    const Words normal = ((magnitude + 0xfff + (magnitude >> 13 & 1)) >> 13) - (112 << 10);
    const Words subnormal =
        __builtin_bit_cast(Words, __builtin_bit_cast(Floats, magnitude) + 0.5f) - 0x3f000000;
    const Words code = magnitude < 113u << 23 ? subnormal : normal;
    return (bits >> 16 & 0x8000) | (code > 0x7c00 ? Words{} + 0x7c00 : code);
  }
};

}  // namespace
}  // namespace modalkv

#include "kernels/page_encoder.hpp"

namespace modalkv {

const EncodeTarget kPortableTarget{"portable", encode, lane_checksum, round_vector<Fp16Coder>,
                                   round_vector<Bf16Coder>};

}  // namespace modalkv
