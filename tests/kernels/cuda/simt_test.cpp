// The emulated GPU: that it computes what CUDA defines, and reports what CUDA leaves undefined.
#include "kernels/simt/simt.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <numeric>
#include <random>
#include <set>
#include <string>
#include <vector>

namespace modalkv::simt {
namespace {

constexpr unsigned kAllLanes = ~0u;
constexpr std::uint64_t kSeeds = 12;

// What a launch was refused for; empty: it ran.
template <class Launch>
std::string misuse(Launch launch) {
  try {
    launch();
  } catch (const Misuse& error) {
    return error.what();
  }
  return {};
}

void collectives(int* out) {
  const int t = static_cast<int>(threadIdx.x), lane = t % 32;
  int* mine = out + t * 10;
  mine[0] = __shfl_sync(kAllLanes, t, 5);
  mine[1] = __shfl_sync(kAllLanes, t, lane + 1, 8);
  mine[2] = __shfl_up_sync(kAllLanes, t, 3);
  mine[3] = __shfl_down_sync(kAllLanes, t, 3, 16);
  mine[4] = __shfl_xor_sync(kAllLanes, t, 9);
  mine[5] = static_cast<int>(__ballot_sync(kAllLanes, lane % 3 == 0));
  mine[6] = __any_sync(kAllLanes, t == 40) + 2 * __all_sync(kAllLanes, t != 40);
  mine[7] = __syncthreads_count(t < 50);
  // Halves of a warp on ways of their own.
  if (lane < 16)
    mine[8] = __shfl_xor_sync(0x0000ffffu, t, 1);
  else
    mine[8] = __shfl_xor_sync(0xffff0000u, t, 2);
  const double wide = __shfl_xor_sync(kAllLanes, t + 0.25, 1);
  mine[9] = static_cast<int>(4 * wide);
}

TEST(Simt, CollectivesMoveWhatCudaDefines) {
  for (std::uint64_t seed = 0; seed < kSeeds; ++seed) {
    const Emulation emulation({.seed = seed});
    std::vector<int> out(64 * 10);
    SIMT_LAUNCH(collectives, 1, 64, 0, nullptr, out.data());
    for (int t = 0; t < 64; ++t) {
      const int lane = t % 32, warp = t - lane;
      const int* mine = &out[static_cast<std::size_t>(t) * 10];
      EXPECT_EQ(mine[0], warp + 5);
      EXPECT_EQ(mine[1], t / 8 * 8 + (t + 1) % 8);
      EXPECT_EQ(mine[2], lane < 3 ? t : t - 3);
      EXPECT_EQ(mine[3], t % 16 + 3 >= 16 ? t : t + 3);
      EXPECT_EQ(mine[4], t ^ 9);
      EXPECT_EQ(mine[5], 0b01001001001001001001001001001001);
      EXPECT_EQ(mine[6], warp == 32 ? 1 : 2);
      EXPECT_EQ(mine[7], 50);
      EXPECT_EQ(mine[8], lane < 16 ? t ^ 1 : t ^ 2);
      EXPECT_EQ(mine[9], 4 * (t ^ 1) + 1);
    }
  }
}

template <bool barrier>
void reverse_by_shared(const int* in, int* out) {
  SIMT_SHARED(int[128], items);
  SIMT_DYNAMIC_SHARED(int, twice);
  const unsigned t = threadIdx.x;
  items[t] = in[blockIdx.x * 128 + t];
  twice[t] = 2 * items[t];
  if constexpr (barrier) __syncthreads();
  out[blockIdx.x * 128 + t] = items[127 - t] + twice[127 - t];
}

template <bool barrier>
bool reverses(std::uint64_t seed) {
  const Emulation emulation({.seed = seed, .workers = 1});
  std::vector<int> in(4 * 128), out(in.size());
  std::iota(in.begin(), in.end(), 0);
  SIMT_LAUNCH(reverse_by_shared<barrier>, {4}, {128}, 128 * sizeof(int), nullptr, in.data(),
              out.data());
  for (int i = 0; i < 4 * 128; ++i)
    if (out[static_cast<std::size_t>(i)] != 3 * (i / 128 * 128 + 127 - i % 128)) return false;
  return true;
}

#ifndef __SANITIZE_THREAD__  // it would report the planted race
TEST(Simt, AnyOrderOfWarpsShowsAMissingBarrier) {
  for (std::uint64_t seed = 0; seed < kSeeds; ++seed) {
    EXPECT_TRUE(reverses<true>(seed)) << seed;
    EXPECT_FALSE(reverses<false>(seed)) << seed;
  }
}
#endif

#ifndef __SANITIZE_THREAD__  // it would report the planted race
// Right only where lanes of a warp run in their natural order.
void prefix_without_syncwarp(int* out) {
  SIMT_SHARED(int[32], items);
  const unsigned t = threadIdx.x;
  items[t] = static_cast<int>(t);
  out[t] = t == 0 ? 0 : items[t - 1];
}

TEST(Simt, TheOrderOfLanesShowsAMissingSyncwarp) {
  int wrong = 0;
  for (std::uint64_t seed = 0; seed < kSeeds; ++seed) {
    const Emulation emulation({.seed = seed});
    std::vector<int> out(32);
    SIMT_LAUNCH(prefix_without_syncwarp, 1, 32, 0, nullptr, out.data());
    bool right = true;
    for (int t = 1; t < 32; ++t) right &= out[static_cast<std::size_t>(t)] == t - 1;
    EXPECT_TRUE(right || seed != 0);
    if (!right) ++wrong;
  }
  EXPECT_EQ(wrong, kSeeds - 1);
}
#endif

void take_a_ticket(unsigned* ticket, unsigned* order) {
  if (threadIdx.x == 0) order[atomicAdd(ticket, 1)] = blockIdx.x;
}

TEST(Simt, ASeedIsAnOrderOfBlocks) {
  const auto order_of = [](std::uint64_t seed) {
    const Emulation emulation({.seed = seed});
    unsigned ticket = 0;
    std::vector<unsigned> order(20);
    SIMT_LAUNCH(take_a_ticket, {20}, {32}, 0, nullptr, &ticket, order.data());
    EXPECT_EQ(std::set<unsigned>(order.begin(), order.end()).size(), 20U);
    return order;
  };
  std::set<std::vector<unsigned>> orders;
  for (std::uint64_t seed = 0; seed < kSeeds; ++seed) orders.insert(order_of(seed));
  EXPECT_EQ(orders.size(), kSeeds);
  EXPECT_EQ(order_of(3), order_of(3));
}

void histogram(const unsigned* values, unsigned* counts, unsigned* largest, unsigned n) {
  for (unsigned i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x) {
    atomicAdd(&counts[values[i] % 16], 1);
    atomicMax(largest, values[i]);
  }
}

TEST(Simt, BlocksOnSeveralThreadsOfTheHostShareAtomics) {
  std::vector<unsigned> values(10000), counts(16);
  std::iota(values.begin(), values.end(), 7);
  unsigned largest = 0;
  const Emulation emulation({.seed = 1, .workers = 3});
  SIMT_LAUNCH(histogram, {8}, {96}, 0, nullptr, values.data(), counts.data(), &largest, 10000u);
  EXPECT_EQ(counts, std::vector<unsigned>(16, 625));
  EXPECT_EQ(largest, 10006U);
}

void read_shared_first(float* out) {
  SIMT_SHARED(float[32], items);
  SIMT_DYNAMIC_SHARED(float, more);
  out[threadIdx.x] = items[threadIdx.x] + more[threadIdx.x];
  __syncthreads();
  items[threadIdx.x] = more[threadIdx.x] = 1;
}

TEST(Simt, SharedMemoryHoldsNothingOfAnEarlierBlock) {
  std::vector<float> out(32);
  for (int i = 0; i < 2; ++i) {
    SIMT_LAUNCH(read_shared_first, {3}, {32}, 128, nullptr, out.data());
    for (const float value : out) EXPECT_TRUE(std::isnan(value));
  }
}

void diverged(int* out) {
  if (threadIdx.x < 16)
    __syncthreads();
  else
    out[threadIdx.x] = __shfl_xor_sync(kAllLanes, 1, 1);
}
void two_barriers(int* out) {
  if (threadIdx.x < 32) {
    __syncthreads();
    out[threadIdx.x] = 1;
  } else {
    __syncthreads();
  }
}
void foreign_mask(int*) {
  if (threadIdx.x < 16) __syncwarp(0xff);
}
void masks_that_differ(int*) {
  __syncwarp(threadIdx.x % 32 < 4 ? 0xffffffff : 0xfffffff0);
}
void outside_the_mask(int* out) {
  if (threadIdx.x < 8) out[threadIdx.x] = __shfl_sync(0xffu, 1, 9);
}
void too_much_shared(int* out) {
  SIMT_SHARED(int[13000], items);
  out[threadIdx.x] = items[0];
}
void two_collectives(int* out) {
  if (threadIdx.x % 2 == 0)
    __syncwarp();
  else
    out[threadIdx.x] = __any_sync(kAllLanes, 1);
}
void left_early(int*) {
  if (threadIdx.x == 5) return;
  __syncwarp();
}
void fine_if_left_early(int* out) {
  if (threadIdx.x >= 40) return;
  __syncthreads();
  if (threadIdx.x < 32) out[threadIdx.x] = __popc(__ballot_sync(kAllLanes, 1));
}

TEST(Simt, WhatCudaLeavesUndefinedIsReportedWithItsPlace) {
  std::vector<int> out(64);
  const auto of = [&](const char* name, void (*kernel)(int*)) {
    return misuse([&] { launch_kernel(name, kernel, 1, 64, 0, nullptr, out.data()); });
  };
  const auto expect = [](const std::string& text, std::initializer_list<const char*> parts) {
    for (const char* part : parts) EXPECT_NE(text.find(part), std::string::npos) << text;
  };
  expect(of("diverged", diverged),
         {"deadlock in diverged, block (0, 0, 0)", "at a barrier at simt_test.cpp:",
          "threads 0 to 15", "in a warp's collective at simt_test.cpp:", "threads 16 to 31"});
  expect(of("two_barriers", two_barriers), {"a barrier reached at simt_test.cpp:"});
  expect(of("foreign_mask", foreign_mask), {"its own mask leaves out (thread 8)"});
  expect(of("masks_that_differ", masks_that_differ), {"deadlock", "threads 0 to 3"});
  expect(of("two_collectives", two_collectives), {"lanes of a warp diverged"});
  expect(of("outside_the_mask", outside_the_mask), {"outside the mask"});
  expect(of("too_much_shared", too_much_shared), {"more shared memory"});
  expect(of("left_early", left_early), {"deadlock", "threads 6 to 31", "33 have left"});
  EXPECT_EQ(of("fine_if_left_early", fine_if_left_early), "");
  EXPECT_EQ(out[5], 32);
}

template <bool wait, bool barrier>
void copy_by_shared(const uint4* in, uint4* out) {
  SIMT_SHARED(uint4[64], items);
  const unsigned t = threadIdx.x;
  copy_async(&items[t], &in[t]);
  copy_async_commit();
  copy_async(&items[t + 32], &in[t + 32]);
  copy_async_commit();
  if constexpr (wait) copy_async_wait<1>();
  if constexpr (barrier) __syncwarp();
  out[t] = items[31 - t];  // the second half may still be under way
  copy_async_wait<0>();
  __syncwarp();
  out[t + 32] = items[63 - t];
}

void copy_without_end(const uint4* in, uint4*) {
  SIMT_SHARED(uint4[32], items);
  copy_async(&items[threadIdx.x], &in[threadIdx.x]);
  copy_async_commit();
}

TEST(Simt, AsynchronousCopiesLandAtTheirWait) {
  std::vector<uint4> in(64);
  for (unsigned i = 0; i < 64; ++i) in[i] = {i, i + 1, i + 2, i + 3};
  const auto right = [&](void (*kernel)(const uint4*, uint4*)) {
    std::vector<uint4> out(64);
    launch_kernel("copies", kernel, 1, 32, 0, nullptr, in.data(), out.data());
    for (unsigned i = 0; i < 64; ++i)
      if (std::memcmp(&out[i], &in[i / 32 * 32 + 31 - i % 32], sizeof(uint4)) != 0) return false;
    return true;
  };
  EXPECT_TRUE(right(copy_by_shared<true, true>));
#ifndef __SANITIZE_THREAD__  // it would report the planted race
  EXPECT_FALSE(right(copy_by_shared<false, true>));
  EXPECT_FALSE(right(copy_by_shared<true, false>));
#endif
  EXPECT_NE(misuse([&] { right(copy_without_end); }).find("nobody waited for"), std::string::npos);
}

// c (16 x 8) = a (16 x k, by rows) * b (8 columns of k), by the PTX manual's places: lane 4g + t
// has of A a0..a7 at rows g, g, g+8, g+8, g, g, g+8, g+8 and columns 2t, 2t+1, 2t, 2t+1, and the
// same plus 8; of B b0..b3 at rows 2t, 2t+1, 2t+8, 2t+9 of column g; of C rows g, g, g+8, g+8.
template <bool bf16>
void multiply(const std::uint16_t* a, const std::uint16_t* b, float* c, int k_end) {
  const int lane = static_cast<int>(threadIdx.x), g = lane / 4, t = lane % 4;
  float d[4] = {};
  for (int k = 0; k < k_end; k += 16) {
    const auto pair = [&](const std::uint16_t* m, int row, int column) {
      const std::uint16_t* p = m + row * k_end + k + column;
      return p[0] | std::uint32_t{p[1]} << 16;
    };
    const std::uint32_t fa[4] = {pair(a, g, 2 * t), pair(a, g + 8, 2 * t), pair(a, g, 2 * t + 8),
                                 pair(a, g + 8, 2 * t + 8)};
    const std::uint32_t fb[2] = {pair(b, g, 2 * t), pair(b, g, 2 * t + 8)};
    if constexpr (bf16)
      mma_bf16(d, fa, fb);
    else
      mma_f16(d, fa, fb);
  }
  for (int i = 0; i < 4; ++i) c[(g + (i < 2 ? 0 : 8)) * 8 + 2 * t + i % 2] = d[i];
}

template <bool bf16>
void expect_products() {
  constexpr int k_end = 64;
  std::mt19937 random(5);
  std::normal_distribution<float> normal;
  const auto number = bf16 ? NumberFormat::bf16 : NumberFormat::fp16;
  std::vector<std::uint16_t> a(16 * k_end), b(8 * k_end);
  for (auto& x : a) x = to_16bit(normal(random), number);
  for (auto& x : b) x = to_16bit(normal(random), number);
  std::vector<float> c(16 * 8);
  SIMT_LAUNCH(multiply<bf16>, 1, 32, 0, nullptr, a.data(), b.data(), c.data(), k_end);
  for (std::size_t row = 0; row < 16; ++row) {
    for (std::size_t column = 0; column < 8; ++column) {
      double sum = 0, magnitude = 0;
      for (std::size_t k = 0; k < k_end; ++k) {
        const double product = double{from_16bit(a[row * k_end + k], number)} *
                               double{from_16bit(b[column * k_end + k], number)};
        sum += product;
        magnitude += std::abs(product);
      }
      EXPECT_NEAR(double{c[row * 8 + column]}, sum, magnitude * 0x1p-22);
    }
  }
}

TEST(Simt, MmaMultipliesByThePlacesThePtxManualGives) {
  expect_products<false>();
  expect_products<true>();
}

void load_fragments(const std::uint16_t* in, std::uint32_t* out) {
  SIMT_SHARED(std::uint16_t[4 * 64], matrices);
  const unsigned t = threadIdx.x;
  for (unsigned i = t; i < 256; i += 32) matrices[i] = in[i];
  __syncwarp();
  std::uint32_t words[4], across[4];
  load_matrices(words, &matrices[t * 8]);
  load_matrices_transposed(across, &matrices[t * 8]);
  for (unsigned i = 0; i < 4; ++i) {
    out[t * 8 + i] = words[i];
    out[t * 8 + 4 + i] = across[i];
  }
}

TEST(Simt, MatricesLoadRowsOrColumns) {
  std::vector<std::uint16_t> in(256);
  std::iota(in.begin(), in.end(), std::uint16_t{0});
  std::vector<std::uint32_t> out(256);
  SIMT_LAUNCH(load_fragments, 1, 32, 0, nullptr, in.data(), out.data());
  for (std::uint32_t t = 0; t < 32; ++t) {
    for (std::uint32_t m = 0; m < 4; ++m) {
      const std::uint32_t g = t / 4, c = t % 4 * 2;
      EXPECT_EQ(out[t * 8 + m], (m * 64 + g * 8 + c) | (m * 64 + g * 8 + c + 1) << 16);
      EXPECT_EQ(out[t * 8 + 4 + m], (m * 64 + c * 8 + g) | (m * 64 + (c + 1) * 8 + g) << 16);
    }
  }
}

// Every product and sum of 16-bit floats is exact in 2200 bits, but not in a double: the cases here
// are those where rounding twice goes wrong.
TEST(Simt, FusedArithmeticRoundsOnce) {
  const auto one = [](float x) { return std::uint32_t{to_fp16(x)}; };
  // 1 + 2^-11 + 2^-24, a tie in binary16 but for the last term.
  EXPECT_EQ(fma_f16x2(one(1 + 0x1p-10f), one(1), one(0x1p-11f)), one(1 + 0x1p-9f));
  EXPECT_EQ(fma_f16x2(one(0x1p-11f), one(1), one(1)), one(1));
  EXPECT_EQ(fma_f16x2(one(1 + 0x1p-10f), one(0x1p-11f), one(1)), one(1 + 0x1p-10f));
  // 2^15 - tie of 2^4, plus a product of two smallest numbers: 2^-48, 64 bits below.
  EXPECT_EQ(fma_f16x2(one(0x1p-24f), one(0x1p-24f), one(1)), one(1));
  EXPECT_EQ(mul_f16x2(one(3) | one(-0.0f) << 16, one(5) | one(2) << 16), one(15) | one(-0.0f)
                                                                                       << 16);
  EXPECT_EQ(sub_f16x2(one(3) | one(1) << 16, one(5) | one(4) << 16), one(-2) | one(-3) << 16);
  EXPECT_EQ(add_bf16x2(0x3f803f80, 0x40003f80), 0x40404000U);
  EXPECT_EQ(lop3<0xea>(0x0f0f0000, 0x00ff00ff, 0xff000000), 0xff0f0000U);
  EXPECT_EQ(__byte_perm(0x33221100, 0x77665544, 0x7150), 0x77115500U);
}

}  // namespace
}  // namespace modalkv::simt
