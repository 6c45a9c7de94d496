// kernels/simt/simt.hpp for nvcc: names for PTX instructions of sm_80 and later.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <type_traits>

#define SIMT_UNROLL _Pragma("unroll")
#define SIMT_SHARED(type, name) __shared__ std::type_identity_t<type> name
#define SIMT_DYNAMIC_SHARED(type, name)                                \
  extern __shared__ __align__(16) unsigned char simt_dynamic_shared[]; \
  type* const name = reinterpret_cast<type*>(simt_dynamic_shared)
#define SIMT_LAUNCH(kernel, grid, block, shared_bytes, stream, ...) \
  ::modalkv::simt::launch_kernel<kernel>(grid, block, shared_bytes, stream, __VA_ARGS__)

namespace modalkv::simt {

// Of this library alone, where a process has several: their kernels are not the same.
#define SIMT_OWN __attribute__((visibility("hidden")))

/// A kernel that SIMT_LAUNCH names somewhere in this library. Naming it makes its entry, before
/// main() begins: none can be forgotten.
class SIMT_OWN LaunchedKernel {
 public:
  explicit LaunchedKernel(const void* kernel) : kernel_(kernel), next_(latest()) {
    latest() = this;
  }
  LaunchedKernel(const LaunchedKernel&) = delete;

  /// Loads all of them onto the current GPU. Returns a cudaError_t.
  static int load_all() {
    cudaError_t error = cudaSuccess;
    cudaFuncAttributes attributes;  // CUDA has no other call for it
    for (const LaunchedKernel* each = latest(); each != nullptr && error == cudaSuccess;
         each = each->next_)
      error = cudaFuncGetAttributes(&attributes, each->kernel_);
    return error;
  }

 private:
  static const LaunchedKernel*& latest() {
    static const LaunchedKernel* kernel = nullptr;
    return kernel;
  }

  const void* kernel_;
  const LaunchedKernel* next_;
};

template <auto kernel>
struct SIMT_OWN Launched {
  static inline const LaunchedKernel entry{reinterpret_cast<const void*>(kernel)};
};
#undef SIMT_OWN

/// Returns a cudaError_t. More than 48 KiB of dynamic shared memory is asked for where needed.
template <auto kernel, class... Arguments>
int launch_kernel(dim3 grid, dim3 block, std::size_t shared_bytes, void* stream,
                  Arguments&&... arguments) {
  (void)&Launched<kernel>::entry;
  if (shared_bytes > (48 << 10)) {
    const cudaError_t allowed = cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel),
                                                     cudaFuncAttributeMaxDynamicSharedMemorySize,
                                                     static_cast<int>(shared_bytes));
    if (allowed != cudaSuccess) return allowed;
  }
  kernel<<<grid, block, shared_bytes, static_cast<cudaStream_t>(stream)>>>(arguments...);
  return cudaGetLastError();
}

__device__ inline std::uint32_t shared_address(const void* pointer) {
  return static_cast<std::uint32_t>(__cvta_generic_to_shared(pointer));
}

__device__ inline void mma_f16(float (&d)[4], const std::uint32_t (&a)[4],
                               const std::uint32_t (&b)[2]) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
      "{%0,%1,%2,%3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

__device__ inline void mma_bf16(float (&d)[4], const std::uint32_t (&a)[4],
                                const std::uint32_t (&b)[2]) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
      "{%0,%1,%2,%3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

__device__ inline void load_matrices(std::uint32_t (&words)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(words[0]), "=r"(words[1]), "=r"(words[2]), "=r"(words[3])
               : "r"(shared_address(row))
               : "memory");
}

__device__ inline void load_matrices_transposed(std::uint32_t (&words)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(words[0]), "=r"(words[1]), "=r"(words[2]), "=r"(words[3])
               : "r"(shared_address(row))
               : "memory");
}

__device__ inline void copy_async(void* shared, const void* global) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(shared_address(shared)),
               "l"(__cvta_generic_to_global(global))
               : "memory");
}

__device__ inline void copy_async_commit() {
  asm volatile("cp.async.commit_group;" ::: "memory");
}

/// All but the latest `groups` have landed; for this thread only, so a barrier follows.
template <int groups>
__device__ inline void copy_async_wait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(groups) : "memory");
}

// Arithmetic on two halves of a word at once.
#define SIMT_BINARY(name, instruction)                                     \
  __device__ inline std::uint32_t name(std::uint32_t a, std::uint32_t b) { \
    std::uint32_t d;                                                       \
    asm(instruction " %0, %1, %2;" : "=r"(d) : "r"(a), "r"(b));            \
    return d;                                                              \
  }
#define SIMT_TERNARY(name, instruction)                                                     \
  __device__ inline std::uint32_t name(std::uint32_t a, std::uint32_t b, std::uint32_t c) { \
    std::uint32_t d;                                                                        \
    asm(instruction " %0, %1, %2, %3;" : "=r"(d) : "r"(a), "r"(b), "r"(c));                 \
    return d;                                                                               \
  }
SIMT_BINARY(add_f16x2, "add.rn.f16x2")
SIMT_BINARY(sub_f16x2, "sub.rn.f16x2")
SIMT_BINARY(mul_f16x2, "mul.rn.f16x2")
SIMT_TERNARY(fma_f16x2, "fma.rn.f16x2")
SIMT_TERNARY(fma_bf16x2, "fma.rn.bf16x2")
#undef SIMT_BINARY
#undef SIMT_TERNARY

// sm_80 has only the fused instruction of bfloat16.
__device__ inline std::uint32_t add_bf16x2(std::uint32_t a, std::uint32_t b) {
  return fma_bf16x2(a, 0x3f803f80u, b);
}
__device__ inline std::uint32_t sub_bf16x2(std::uint32_t a, std::uint32_t b) {
  return fma_bf16x2(b, 0xbf80bf80u, a);
}
__device__ inline std::uint32_t mul_bf16x2(std::uint32_t a, std::uint32_t b) {
  return fma_bf16x2(a, b, 0x80008000u);
}

__device__ inline std::uint32_t pack_f16x2(float low, float high) {
  std::uint32_t word;
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(word) : "f"(high), "f"(low));
  return word;
}
__device__ inline std::uint32_t pack_bf16x2(float low, float high) {
  std::uint32_t word;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(word) : "f"(high), "f"(low));
  return word;
}
__device__ inline float low_f16(std::uint32_t word) {
  float value;
  asm("{ .reg .b16 low, high; mov.b32 {low, high}, %1; cvt.f32.f16 %0, low; }"
      : "=f"(value)
      : "r"(word));
  return value;
}
__device__ inline float high_f16(std::uint32_t word) {
  float value;
  asm("{ .reg .b16 low, high; mov.b32 {low, high}, %1; cvt.f32.f16 %0, high; }"
      : "=f"(value)
      : "r"(word));
  return value;
}
__device__ inline float low_bf16(std::uint32_t word) {
  return __uint_as_float(word << 16);
}
__device__ inline float high_bf16(std::uint32_t word) {
  return __uint_as_float(word & 0xffff0000u);
}

__device__ inline float ex2(float x) {
  float power;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(power) : "f"(x));
  return power;
}

/// Bit i of the result is bit 4a + 2b + c of `table`, by bits i of a, b and c.
template <int table>
__device__ inline std::uint32_t lop3(std::uint32_t a, std::uint32_t b, std::uint32_t c) {
  std::uint32_t d;
  asm("lop3.b32 %0, %1, %2, %3, %4;" : "=r"(d) : "r"(a), "r"(b), "r"(c), "n"(table));
  return d;
}

}  // namespace modalkv::simt
