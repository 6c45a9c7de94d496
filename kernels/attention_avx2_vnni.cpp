#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <limits>
#include <optional>
#include <span>
#include <type_traits>
#include <utility>

#include "kernels/attention_targets.hpp"
#include "kernels/hadamard.hpp"
#include "kernels/key_bias.hpp"
#include "kernels/page_layout.hpp"
#include "kernels/quantizer.hpp"
#include "kernels/query_rows.hpp"
#include "kernels/rows_at_once.hpp"

#if defined(__x86_64__)
#include <immintrin.h>

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma,f16c,avxvnni"))), apply_to = function)
#else
// GCC 12 takes the undefined operands inside its own intrinsics for mistakes (GCC bug 105593).
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c,avxvnni")
#endif

namespace modalkv {
namespace {

inline __m256i add_pair_products(__m256i sums, __m256i a, __m256i b) {
  return _mm256_dpwssd_avx_epi32(sums, a, b);
}

#include "kernels/simd_avx2.hpp"
//
#include "kernels/attention_simd.hpp"

}  // namespace

void attend_avx2_vnni(const Queries& queries, const PageList& list, int first_kv_head,
                      int end_kv_head, std::span<float> partials) {
  attend_with_vectors(queries, list, first_kv_head, end_kv_head, partials);
}

}  // namespace modalkv

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#endif
