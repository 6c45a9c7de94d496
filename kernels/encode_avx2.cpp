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

#if defined(__x86_64__)
#include <immintrin.h>

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,f16c"))), apply_to = function)
#else
// GCC 12 takes the undefined operands inside its own intrinsics for mistakes (GCC bug 105593).
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC push_options
#pragma GCC target("avx2,f16c")
#endif

namespace modalkv {
namespace {

struct Machine {
  static constexpr int kWidth = 8;
  using Floats [[gnu::vector_size(32)]] = float;
  using Words [[gnu::vector_size(32)]] = std::uint32_t;

  static Floats lesser(Floats a, Floats b) { return _mm256_min_ps(a, b); }
  static Floats greater(Floats a, Floats b) { return _mm256_max_ps(a, b); }
  static Floats add_poison(Floats poison, Floats value) { return poison + (value - value); }
  static Floats from_fp16(const std::uint16_t* from) {
    return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
  }
  static Words to_fp16(Floats a) {
    return __builtin_bit_cast(Words,
                              _mm256_cvtepu16_epi32(_mm256_cvtps_ph(a, _MM_FROUND_TO_NEAREST_INT)));
  }
};

}  // namespace
}  // namespace modalkv

#include "kernels/page_encoder.hpp"

namespace modalkv {

const EncodeTarget kAvx2Target{"avx2", encode, lane_checksum, round_vector<Fp16Coder>,
                               round_vector<Bf16Coder>};

}  // namespace modalkv

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#endif
