// One source of a kernel for nvcc and, on machines without a GPU, for the C++ compiler. Kernels use
// CUDA's own spelling, and what this header adds:
//
//   SIMT_LAUNCH(kernel, grid, block, shared_bytes, stream, arguments...)   a cudaError_t; `kernel`
//                                     by its name, no variable: gpu::preload() loads what is named
//   SIMT_SHARED(type, name)           in place of __shared__ type name, such as
//                                     SIMT_SHARED(float[256], sums)
//   SIMT_UNROLL                       in front of a loop over registers
//   SIMT_DYNAMIC_SHARED(type, name)   type* name: the launch's shared memory, aligned to 16 bytes
//
// and in namespace modalkv::simt, by words that hold two 16-bit floats, element 0 in the low half:
//
//   mma_f16, mma_bf16(d, a, b)        d += a * b, m16n8k16, fragments as PTX defines them
//   load_matrices(words, row)         ldmatrix.x4, load_matrices_transposed: .trans
//   copy_async(shared, global)        cp.async of 16 bytes; copy_async_commit, copy_async_wait<N>
//   add_f16x2, sub_f16x2, mul_f16x2, fma_f16x2, and the same of bf16x2
//   pack_f16x2, pack_bf16x2(low, high)   floats to a word, to nearest even
//   low_f16, high_f16, low_bf16, high_bf16(word)   floats
//   ex2(x)                            2^x, approximately: ex2.approx.ftz
//   lop3<table>(a, b, c)              any function of three bits
//
// No header of CUDA is included under emulation. What that checks: kernels/simt/block.hpp.
#pragma once

#ifdef __CUDACC__
#include "kernels/simt/on_gpu.hpp"
#else
#include "kernels/simt/emulated.hpp"
#endif
