// The PTX instructions of kernels/simt/on_gpu.hpp, emulated.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>

#include "kernels/number.hpp"
#include "kernels/simt/block.hpp"
#include "kernels/simt/warp.hpp"

namespace modalkv::simt {

inline float wide_f16(std::uint16_t bits) {
  return from_fp16(bits);
}
inline float wide_bf16(std::uint16_t bits) {
  return from_bf16(bits);
}

inline void mma_f16(float (&d)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2],
                    Where where = Where::current()) {
  multiply_accumulate(d, a, b, wide_f16, where);
}
inline void mma_bf16(float (&d)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2],
                     Where where = Where::current()) {
  multiply_accumulate(d, a, b, wide_bf16, where);
}
inline void load_matrices(std::uint32_t (&words)[4], const void* row,
                          Where where = Where::current()) {
  load_matrices(words, row, false, where);
}
inline void load_matrices_transposed(std::uint32_t (&words)[4], const void* row,
                                     Where where = Where::current()) {
  load_matrices(words, row, true, where);
}

inline void copy_async(void* shared, const void* global, Where where = Where::current()) {
  const auto misaligned = [](const void* p) { return std::bit_cast<std::uintptr_t>(p) % 16 != 0; };
  Block& block = Block::current();
  if (misaligned(shared) || misaligned(global))
    block.fail("an asynchronous copy that is not aligned to 16 bytes", where);
  Thread& thread = block.thread();
  thread.copies.push_back({shared, global, thread.committed});
}
inline void copy_async_commit() {
  ++Block::current().thread().committed;
}

// Copies land here, as late as they may.
template <int groups>
void copy_async_wait() {
  Thread& thread = Block::current().thread();
  std::erase_if(thread.copies, [&](const PendingCopy& copy) {
    if (copy.group + groups >= thread.committed) return false;
    std::memcpy(copy.to, copy.from, 16);
    return true;
  });
}

/// The sum of a double and a double, to odd where it is not exact: a later rounding to fewer bits
/// is then as if there had been no first one.
inline double add_to_odd(double a, double b) {
  const double sum = a + b;
  const double of_b = sum - a;
  const double error = (a - (sum - of_b)) + (b - of_b);
  const auto bits = std::bit_cast<std::uint64_t>(sum);
  if (error == 0 || !std::isfinite(sum) || (bits & 1) != 0) return sum;
  const bool away = (error > 0) == (sum > 0);
  return std::bit_cast<double>(away ? bits + 1 : bits - 1);
}

/// As add_to_odd, to 24 bits.
inline float narrow_to_odd(double value) {
  const auto narrow = static_cast<float>(value);
  const auto bits = std::bit_cast<std::uint32_t>(narrow);
  if (static_cast<double>(narrow) == value || !std::isfinite(narrow) || (bits & 1) != 0)
    return narrow;
  const bool away = (value > narrow) == (value > 0);
  return std::bit_cast<float>(away ? bits + 1 : bits - 1);
}

template <class Narrow, class Wide>
std::uint32_t fused(std::uint32_t a, std::uint32_t b, std::uint32_t c, Narrow narrow, Wide wide) {
  const auto half = [&](int shift) {
    const auto of = [&](std::uint32_t word) {
      return static_cast<double>(wide(static_cast<std::uint16_t>(word >> shift)));
    };
    const std::uint32_t bits = narrow(narrow_to_odd(add_to_odd(of(a) * of(b), of(c))));
    return bits << shift;
  };
  return half(0) | half(16);
}

inline std::uint32_t fma_f16x2(std::uint32_t a, std::uint32_t b, std::uint32_t c) {
  return fused(a, b, c, to_fp16, from_fp16);
}
inline std::uint32_t fma_bf16x2(std::uint32_t a, std::uint32_t b, std::uint32_t c) {
  return fused(a, b, c, to_bf16, from_bf16);
}
inline std::uint32_t add_f16x2(std::uint32_t a, std::uint32_t b) {
  return fma_f16x2(a, 0x3c003c00, b);
}
inline std::uint32_t sub_f16x2(std::uint32_t a, std::uint32_t b) {
  return fma_f16x2(b, 0xbc00bc00, a);
}
inline std::uint32_t mul_f16x2(std::uint32_t a, std::uint32_t b) {
  return fma_f16x2(a, b, 0x80008000);
}
inline std::uint32_t add_bf16x2(std::uint32_t a, std::uint32_t b) {
  return fma_bf16x2(a, 0x3f803f80, b);
}
inline std::uint32_t sub_bf16x2(std::uint32_t a, std::uint32_t b) {
  return fma_bf16x2(b, 0xbf80bf80, a);
}
inline std::uint32_t mul_bf16x2(std::uint32_t a, std::uint32_t b) {
  return fma_bf16x2(a, b, 0x80008000);
}

inline std::uint32_t pack_f16x2(float low, float high) {
  return to_fp16(low) | std::uint32_t{to_fp16(high)} << 16;
}
inline std::uint32_t pack_bf16x2(float low, float high) {
  return to_bf16(low) | std::uint32_t{to_bf16(high)} << 16;
}
inline float low_f16(std::uint32_t word) {
  return from_fp16(static_cast<std::uint16_t>(word));
}
inline float high_f16(std::uint32_t word) {
  return from_fp16(static_cast<std::uint16_t>(word >> 16));
}
inline float low_bf16(std::uint32_t word) {
  return std::bit_cast<float>(word << 16);
}
inline float high_bf16(std::uint32_t word) {
  return std::bit_cast<float>(word & 0xffff0000);
}

inline float ex2(float x) {
  return std::exp2(x);
}

template <int table>
std::uint32_t lop3(std::uint32_t a, std::uint32_t b, std::uint32_t c) {
  std::uint32_t d = 0;
  for (unsigned i = 0; i < 8; ++i)
    if ((table >> i & 1) != 0)
      d |= ((i & 4) != 0 ? a : ~a) & ((i & 2) != 0 ? b : ~b) & ((i & 1) != 0 ? c : ~c);
  return d;
}

}  // namespace modalkv::simt
