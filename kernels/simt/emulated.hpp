// kernels/simt/simt.hpp for the C++ compiler: keywords, variables and functions of CUDA C++.
#pragma once

#include <algorithm>
#include <atomic>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "kernels/simt/block.hpp"
#include "kernels/simt/launch.hpp"
#include "kernels/simt/warp.hpp"

#define __global__
#define __device__
#define __host__
#define __constant__ static const
#define __grid_constant__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __align__(bytes) alignas(bytes)

#define threadIdx (::modalkv::simt::Block::current().thread().index)
#define blockIdx (::modalkv::simt::Block::current().index())
#define blockDim (::modalkv::simt::Block::current().launch().block)
#define gridDim (::modalkv::simt::Block::current().launch().grid)

#define SIMT_UNROLL
// A lambda is a type of its own for each declaration, and for each instance of a template.
#define SIMT_SHARED(type, name)      \
  std::type_identity_t<type>& name = \
      ::modalkv::simt::shared_object<std::type_identity_t<type>>([] {})
#define SIMT_DYNAMIC_SHARED(type, name) \
  type* const name = static_cast<type*>(::modalkv::simt::Block::current().dynamic_shared())
#define SIMT_LAUNCH(kernel, grid, block, shared_bytes, stream, ...) \
  ::modalkv::simt::launch_kernel(#kernel, kernel, grid, block, shared_bytes, stream, __VA_ARGS__)

struct dim3 {
  constexpr dim3(unsigned nx = 1, unsigned ny = 1, unsigned nz = 1) : x(nx), y(ny), z(nz) {}
  unsigned x, y, z;
};
struct alignas(8) uint2 {
  unsigned x, y;
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};
struct alignas(8) float2 {
  float x, y;
};
struct alignas(16) float4 {
  float x, y, z, w;
};
constexpr uint2 make_uint2(unsigned x, unsigned y) {
  return {x, y};
}
constexpr uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) {
  return {x, y, z, w};
}
constexpr float2 make_float2(float x, float y) {
  return {x, y};
}
constexpr float4 make_float4(float x, float y, float z, float w) {
  return {x, y, z, w};
}

namespace modalkv::simt {

template <class T, class Declaration>
T& shared_object(Declaration) {
  static const char key = 0;
  return *static_cast<T*>(Block::current().static_shared(&key, sizeof(T), alignof(T)));
}

template <class... Parameters, class... Arguments>
int launch_kernel(const char* name, void (*kernel)(Parameters...), dim3 grid, dim3 block,
                  std::size_t shared_bytes, void* /*stream*/, const Arguments&... arguments) {
  launch_grid(name, {grid.x, grid.y, grid.z}, {block.x, block.y, block.z}, shared_bytes,
              [&] { kernel(arguments...); });
  return 0;
}

/// Any value of at most 16 bytes, by words.
template <class T>
T shuffled(unsigned mask, T value, unsigned source, Where where) {
  static_assert(sizeof(T) <= 16 && std::is_trivially_copyable_v<T>);
  std::uint32_t words[4] = {};
  std::memcpy(words, &value, sizeof value);
  shuffle(mask, words, static_cast<int>((sizeof value + 3) / 4), source, where);
  std::memcpy(&value, words, sizeof value);
  return value;
}

inline unsigned lane() {
  return Block::current().thread().lane();
}

}  // namespace modalkv::simt

inline void __syncthreads(modalkv::simt::Where where = modalkv::simt::Where::current()) {
  modalkv::simt::Block::current().barrier(false, where);
}
inline int __syncthreads_count(int predicate,
                               modalkv::simt::Where where = modalkv::simt::Where::current()) {
  return modalkv::simt::Block::current().barrier(predicate != 0, where);
}
inline int __syncthreads_or(int predicate,
                            modalkv::simt::Where where = modalkv::simt::Where::current()) {
  return modalkv::simt::Block::current().barrier(predicate != 0, where) > 0 ? 1 : 0;
}
inline int __syncthreads_and(int predicate,
                             modalkv::simt::Where where = modalkv::simt::Where::current()) {
  return modalkv::simt::Block::current().barrier(predicate == 0, where) == 0 ? 1 : 0;
}
inline void __syncwarp(unsigned mask = ~0u,
                       modalkv::simt::Where where = modalkv::simt::Where::current()) {
  modalkv::simt::ballot(mask, false, true, where);
}
inline unsigned __ballot_sync(unsigned mask, int predicate,
                              modalkv::simt::Where where = modalkv::simt::Where::current()) {
  return modalkv::simt::ballot(mask, predicate != 0, false, where);
}
inline int __any_sync(unsigned mask, int predicate,
                      modalkv::simt::Where where = modalkv::simt::Where::current()) {
  return modalkv::simt::ballot(mask, predicate != 0, false, where) != 0 ? 1 : 0;
}
inline int __all_sync(unsigned mask, int predicate,
                      modalkv::simt::Where where = modalkv::simt::Where::current()) {
  return modalkv::simt::ballot(mask, predicate != 0, false, where) == mask ? 1 : 0;
}

template <class T>
T __shfl_sync(unsigned mask, T value, int source, int width = 32,
              modalkv::simt::Where where = modalkv::simt::Where::current()) {
  const auto w = static_cast<unsigned>(width);
  const unsigned begin = modalkv::simt::lane() & ~(w - 1);
  return modalkv::simt::shuffled(mask, value, begin + (static_cast<unsigned>(source) & (w - 1)),
                                 where);
}
template <class T>
T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32,
                 modalkv::simt::Where where = modalkv::simt::Where::current()) {
  const unsigned lane = modalkv::simt::lane(), begin = lane & ~(static_cast<unsigned>(width) - 1);
  return modalkv::simt::shuffled(mask, value, lane < begin + delta ? lane : lane - delta, where);
}
template <class T>
T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32,
                   modalkv::simt::Where where = modalkv::simt::Where::current()) {
  const auto w = static_cast<unsigned>(width);
  const unsigned lane = modalkv::simt::lane(), end = (lane & ~(w - 1)) + w;
  return modalkv::simt::shuffled(mask, value, lane + delta >= end ? lane : lane + delta, where);
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int bits, int width = 32,
                  modalkv::simt::Where where = modalkv::simt::Where::current()) {
  const auto w = static_cast<unsigned>(width);
  const unsigned lane = modalkv::simt::lane(), end = (lane & ~(w - 1)) + w;
  const unsigned other = lane ^ static_cast<unsigned>(bits);
  return modalkv::simt::shuffled(mask, value, other >= end ? lane : other, where);
}

// A CUDA program orders its relaxed atomics by fences, which the thread sanitizer does not see; so
// they order, too.
template <class T>
T atomicAdd(T* place, std::type_identity_t<T> value) {
  return std::atomic_ref<T>(*place).fetch_add(value, std::memory_order_acq_rel);
}
template <class T>
T atomicOr(T* place, std::type_identity_t<T> value) {
  return std::atomic_ref<T>(*place).fetch_or(value, std::memory_order_acq_rel);
}
template <class T>
T atomicExch(T* place, std::type_identity_t<T> value) {
  return std::atomic_ref<T>(*place).exchange(value, std::memory_order_acq_rel);
}
template <class T>
T atomicCAS(T* place, std::type_identity_t<T> expected, std::type_identity_t<T> value) {
  std::atomic_ref<T>(*place).compare_exchange_strong(expected, value, std::memory_order_acq_rel);
  return expected;
}
template <class T>
T atomicMax(T* place, std::type_identity_t<T> value) {
  std::atomic_ref<T> atomic(*place);
  T old = atomic.load(std::memory_order_acquire);
  while (old < value && !atomic.compare_exchange_weak(old, value, std::memory_order_acq_rel)) {
  }
  return old;
}
template <class T>
T atomicMin(T* place, std::type_identity_t<T> value) {
  std::atomic_ref<T> atomic(*place);
  T old = atomic.load(std::memory_order_acquire);
  while (value < old && !atomic.compare_exchange_weak(old, value, std::memory_order_acq_rel)) {
  }
  return old;
}
inline void __threadfence() {}

// Loads and stores with a hint for the caches.
template <class T>
T __ldg(const T* place) {
  return *place;
}
template <class T>
T __ldcs(const T* place) {
  return *place;
}
template <class T>
T __ldcg(const T* place) {
  return *place;
}
template <class T>
void __stcs(T* place, const std::type_identity_t<T>& value) {
  *place = value;
}

inline float __uint_as_float(unsigned bits) {
  return std::bit_cast<float>(bits);
}
inline unsigned __float_as_uint(float value) {
  return std::bit_cast<unsigned>(value);
}
inline float __int_as_float(int bits) {
  return std::bit_cast<float>(bits);
}
inline int __float_as_int(float value) {
  return std::bit_cast<int>(value);
}
inline float __fadd_rn(float a, float b) {
  return a + b;
}
inline float __fsub_rn(float a, float b) {
  return a - b;
}
inline float __fmul_rn(float a, float b) {
  return a * b;
}
inline float __fdiv_rn(float a, float b) {
  return a / b;
}
inline float __fmaf_rn(float a, float b, float c) {
  return std::fma(a, b, c);
}
inline float __frcp_rn(float a) {
  return 1 / a;
}
inline float __fdividef(float a, float b) {
  return a / b;
}
inline float __expf(float x) {
  return std::exp(x);
}
inline float __logf(float x) {
  return std::log(x);
}
inline int __float2int_rn(float x) {
  return static_cast<int>(std::nearbyint(x));
}
inline float rsqrtf(float x) {
  return 1 / std::sqrt(x);
}
inline int __popc(unsigned x) {
  return std::popcount(x);
}
inline int __clz(int x) {
  return std::countl_zero(static_cast<unsigned>(x));
}
inline int __ffs(int x) {
  return x == 0 ? 0 : std::countr_zero(static_cast<unsigned>(x)) + 1;
}
/// Byte i of the result is the one that nibble i of `selector` names of the 8 of y:x.
inline unsigned __byte_perm(unsigned x, unsigned y, unsigned selector) {
  const std::uint64_t bytes = std::uint64_t{y} << 32 | x;
  unsigned result = 0;
  for (unsigned i = 0; i < 4; ++i)
    result |= static_cast<unsigned>(bytes >> (8 * (selector >> (4 * i) & 7)) & 0xff) << (8 * i);
  return result;
}
using std::max;
using std::min;

#include "kernels/simt/emulated_ptx.hpp"
