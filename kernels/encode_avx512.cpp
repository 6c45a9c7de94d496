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
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512dq,avx512vl"))), \
                             apply_to = function)
#else
// GCC 12 takes the undefined operands inside its own intrinsics for mistakes (GCC bug 105593).
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,prefer-vector-width=512")
#endif

namespace modalkv {
namespace {

struct Machine {
  static constexpr int kWidth = 16;
  using Floats [[gnu::vector_size(64)]] = float;
  using Words [[gnu::vector_size(64)]] = std::uint32_t;

  static Floats lesser(Floats a, Floats b) { return _mm512_min_ps(a, b); }
  static Floats greater(Floats a, Floats b) { return _mm512_max_ps(a, b); }
  static Floats add_poison(Floats poison, Floats value) {
    return _mm512_fmadd_ps(value, _mm512_setzero_ps(), poison);
  }
  static Floats from_fp16(const std::uint16_t* from) {
    return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
  }
  static Words to_fp16(Floats a) {
    return __builtin_bit_cast(Words,
                              _mm512_cvtepu16_epi32(_mm512_cvtps_ph(a, _MM_FROUND_TO_NEAREST_INT)));
  }
};

}  // namespace
}  // namespace modalkv

#include "kernels/page_encoder.hpp"

namespace modalkv {

const EncodeTarget kAvx512Target{"avx512", encode, lane_checksum, round_vector<Fp16Coder>,
                                 round_vector<Bf16Coder>};

}  // namespace modalkv

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#endif
