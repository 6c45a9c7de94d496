// Multiply-adds at the rate of the vector units: operands stay in registers, and there are more
// chains than an instruction's latency covers. Chains begin with different values and operands are
// not known before the program runs, or a compiler makes one chain, or none, of them.
#include <cstddef>
#include <iterator>
#include <type_traits>

#include "tools/bench/ceiling_loops.hpp"

#if defined(__x86_64__)
#include <cpuid.h>
#include <immintrin.h>
#endif

namespace modalkv {
namespace {

using Floats [[gnu::vector_size(16)]] = float;
using Shorts [[gnu::vector_size(16)]] = std::uint16_t;

// x = x a + b: the multiplication cannot be taken out of the loop.
template <typename Vector>
float portable_chains(std::int64_t turns) {
  constexpr std::size_t kLanes = sizeof(Vector) / sizeof(Vector{}[0]);
  using Element = std::remove_cvref_t<decltype(Vector{}[0])>;
  Vector sums[10] = {}, factor = {}, term = {};
  for (std::size_t lane = 0; lane < kLanes; ++lane) {
    factor[lane] = term[lane] = static_cast<Element>(1.0 / static_cast<double>(turns));
    for (std::size_t chain = 0; chain < std::size(sums); ++chain)
      sums[chain][lane] = static_cast<Element>(chain);
  }
  for (std::int64_t turn = 0; turn < turns; ++turn)
    for (Vector& sum : sums) sum = sum * factor + term;
  for (const Vector& sum : sums) term += sum;
  return static_cast<float>(term[0]);
}

constexpr DotProductLoop kFloats128{"FP32 multiply-add, 128 bits", 10 * 4 * 2,
                                    portable_chains<Floats>};
constexpr DotProductLoop kShorts128{"16-bit integer multiply-add, 128 bits", 10 * 8 * 2,
                                    portable_chains<Shorts>};

#if defined(__x86_64__)

constexpr int kChains512 = 16;  // of 32 registers
constexpr int kChains256 = 12;  // of 16

[[gnu::target("avx512f,avx512bf16")]] float bf16_512(std::int64_t turns) {
  const auto a = (__m512bh)_mm512_set1_ps(static_cast<float>(turns));
  __m512 sums[kChains512];
  for (int chain = 0; chain < kChains512; ++chain)
    sums[chain] = _mm512_set1_ps(static_cast<float>(chain));
  for (std::int64_t turn = 0; turn < turns; ++turn)
    for (__m512& sum : sums) sum = _mm512_dpbf16_ps(sum, a, a);
  for (int chain = 1; chain < kChains512; ++chain) sums[0] += sums[chain];
  return sums[0][0];
}

[[gnu::target("avx512f")]] float floats_512(std::int64_t turns) {
  const __m512 a = _mm512_set1_ps(1 / static_cast<float>(turns));
  __m512 sums[kChains512];
  for (int chain = 0; chain < kChains512; ++chain)
    sums[chain] = _mm512_set1_ps(static_cast<float>(chain));
  for (std::int64_t turn = 0; turn < turns; ++turn)
    for (__m512& sum : sums) sum = _mm512_fmadd_ps(sum, a, a);
  for (int chain = 1; chain < kChains512; ++chain) sums[0] += sums[chain];
  return sums[0][0];
}

[[gnu::target("avx2,fma")]] float floats_256(std::int64_t turns) {
  const __m256 a = _mm256_set1_ps(1 / static_cast<float>(turns));
  __m256 sums[kChains256];
  for (int chain = 0; chain < kChains256; ++chain)
    sums[chain] = _mm256_set1_ps(static_cast<float>(chain));
  for (std::int64_t turn = 0; turn < turns; ++turn)
    for (__m256& sum : sums) sum = _mm256_fmadd_ps(sum, a, a);
  for (int chain = 1; chain < kChains256; ++chain) sums[0] += sums[chain];
  return sums[0][0];
}

[[gnu::target("avx512f,avx512vnni")]] float bytes_512(std::int64_t turns) {
  const __m512i a = _mm512_set1_epi32(static_cast<int>(turns));
  __m512i sums[kChains512];
  for (int chain = 0; chain < kChains512; ++chain) sums[chain] = _mm512_set1_epi32(chain);
  for (std::int64_t turn = 0; turn < turns; ++turn)
    for (__m512i& sum : sums) sum = _mm512_dpbusd_epi32(sum, a, a);
  std::uint64_t all = 0;
  for (const __m512i& sum : sums) all += static_cast<std::uint64_t>(sum[0]);
  return static_cast<float>(all);
}

[[gnu::target("avx2,avxvnni")]] float bytes_256(std::int64_t turns) {
  const __m256i a = _mm256_set1_epi32(static_cast<int>(turns));
  __m256i sums[kChains256];
  for (int chain = 0; chain < kChains256; ++chain) sums[chain] = _mm256_set1_epi32(chain);
  for (std::int64_t turn = 0; turn < turns; ++turn)
    for (__m256i& sum : sums) sum = _mm256_dpbusd_avx_epi32(sum, a, a);
  std::uint64_t all = 0;
  for (const __m256i& sum : sums) all += static_cast<std::uint64_t>(sum[0]);
  return static_cast<float>(all);
}

// Three instructions a dot product; the empty assembly keeps their operands opaque, for the first
// two would be computed once.
[[gnu::target("avx2")]] float byte_pairs_256(std::int64_t turns) {
  __m256i a = _mm256_set1_epi32(static_cast<int>(turns));
  const __m256i ones = _mm256_set1_epi16(1);
  __m256i sums[kChains256];
  for (int chain = 0; chain < kChains256; ++chain) sums[chain] = _mm256_set1_epi32(chain);
  for (std::int64_t turn = 0; turn < turns; ++turn)
    for (__m256i& sum : sums) {
      asm volatile("" : "+x"(a));
      sum = _mm256_add_epi32(sum, _mm256_madd_epi16(_mm256_maddubs_epi16(a, a), ones));
    }
  std::uint64_t all = 0;
  for (const __m256i& sum : sums) all += static_cast<std::uint64_t>(sum[0]);
  return static_cast<float>(all);
}

// Older compilers know no name for it.
bool has_avx_vnni() {
  unsigned a = 0, b = 0, c = 0, d = 0;
  return __builtin_cpu_supports("avx2") && __get_cpuid_count(7, 1, &a, &b, &c, &d) != 0 &&
         (a >> 4 & 1) != 0;
}

#endif

}  // namespace

DotProductLoop dot_product_loop_16bit() {
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx512bf16"))
    return {"BF16 pairs, 512 bits", kChains512 * 16 * 4, bf16_512};
  if (__builtin_cpu_supports("avx512f"))
    return {"FP32 multiply-add, 512 bits", kChains512 * 16 * 2, floats_512};
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
    return {"FP32 multiply-add, 256 bits", kChains256 * 8 * 2, floats_256};
#endif
  return kFloats128;
}

DotProductLoop dot_product_loop_8bit() {
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx512vnni"))
    return {"u8 x s8, 512 bits", kChains512 * 64 * 2, bytes_512};
  if (has_avx_vnni()) return {"u8 x s8, 256 bits", kChains256 * 32 * 2, bytes_256};
  if (__builtin_cpu_supports("avx2"))
    return {"u8 x s8 in three instructions, 256 bits", kChains256 * 32 * 2, byte_pairs_256};
#endif
  return kShorts128;
}

}  // namespace modalkv
