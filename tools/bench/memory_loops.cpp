// Reading and copying. One body a loop, compiled for each width of vector.
#include <cstring>

#include "tools/bench/ceiling_loops.hpp"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace modalkv {
namespace {

constexpr std::size_t kTurnBytes = 256;

// `streams` places are read in turn, so that more pages and prefetchers are at work; `ahead_bytes`
// > 0 asks for lines that far ahead.
template <typename Vector, int streams, int ahead_bytes>
[[gnu::always_inline]] inline std::uint64_t read(std::span<const std::byte> from) {
  constexpr std::size_t kVectors = kTurnBytes / sizeof(Vector);
  const std::size_t part = from.size() / streams / kTurnBytes * kTurnBytes;
  Vector sums[kVectors] = {};
  for (std::size_t at = 0; at < part; at += kTurnBytes)
    for (std::size_t s = 0; s < streams; ++s) {
      const std::byte* turn = from.data() + s * part + at;
      if constexpr (ahead_bytes > 0)
        for (std::size_t line = 0; line < kTurnBytes; line += 64)
          __builtin_prefetch(reinterpret_cast<const void*>(reinterpret_cast<std::uintptr_t>(turn) +
                                                           line + ahead_bytes));
      for (std::size_t v = 0; v < kVectors; ++v)
        sums[v] ^= *reinterpret_cast<const Vector*>(turn + v * sizeof(Vector));
    }
  for (std::size_t v = 1; v < kVectors; ++v) sums[0] ^= sums[v];
  std::uint64_t words[sizeof(Vector) / 8], sum = 0;
  std::memcpy(words, &sums[0], sizeof(Vector));
  for (const std::uint64_t word : words) sum ^= word;
  return sum;
}

void copy_cached(std::span<const std::byte> from, std::byte* to) {
  std::memcpy(to, from.data(), from.size());
}

using Vector16 [[gnu::vector_size(16), gnu::may_alias]] = std::uint64_t;

template <int streams, int ahead_bytes>
std::uint64_t read_16(std::span<const std::byte> from) {
  return read<Vector16, streams, ahead_bytes>(from);
}

constexpr ReadLoop kRead16[] = {{"1 stream, 128-bit loads", read_16<1, 0>},
                                {"1 stream, 128-bit loads, prefetch", read_16<1, 2048>},
                                {"4 streams, 128-bit loads", read_16<4, 0>},
                                {"4 streams, 128-bit loads, prefetch", read_16<4, 1024>}};

#if defined(__x86_64__)

using Vector32 [[gnu::vector_size(32), gnu::may_alias]] = std::uint64_t;
using Vector64 [[gnu::vector_size(64), gnu::may_alias]] = std::uint64_t;

template <int streams, int ahead_bytes>
[[gnu::target("avx2")]] std::uint64_t read_32(std::span<const std::byte> from) {
  return read<Vector32, streams, ahead_bytes>(from);
}

template <int streams, int ahead_bytes>
[[gnu::target("avx512f")]] std::uint64_t read_64(std::span<const std::byte> from) {
  return read<Vector64, streams, ahead_bytes>(from);
}

constexpr ReadLoop kRead32[] = {{"1 stream, 256-bit loads", read_32<1, 0>},
                                {"1 stream, 256-bit loads, prefetch", read_32<1, 2048>},
                                {"4 streams, 256-bit loads", read_32<4, 0>},
                                {"4 streams, 256-bit loads, prefetch", read_32<4, 1024>}};
constexpr ReadLoop kRead64[] = {{"1 stream, 512-bit loads", read_64<1, 0>},
                                {"1 stream, 512-bit loads, prefetch", read_64<1, 2048>},
                                {"4 streams, 512-bit loads", read_64<4, 0>},
                                {"4 streams, 512-bit loads, prefetch", read_64<4, 1024>}};

// Stores past the caches save the read of what is overwritten.
void copy_streaming(std::span<const std::byte> from, std::byte* to) {
  for (std::size_t at = 0; at < from.size(); at += 64)
    for (std::size_t part = 0; part < 64; part += 16)
      _mm_stream_si128(reinterpret_cast<__m128i*>(to + at + part),
                       _mm_load_si128(reinterpret_cast<const __m128i*>(from.data() + at + part)));
  _mm_sfence();
}

constexpr CopyLoop kCopy[] = {{"memcpy", copy_cached}, {"non-temporal stores", copy_streaming}};

#else

constexpr CopyLoop kCopy[] = {{"memcpy", copy_cached}};

#endif

}  // namespace

std::span<const ReadLoop> read_loops() {
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx512f")) return kRead64;
  if (__builtin_cpu_supports("avx2")) return kRead32;
#endif
  return kRead16;
}

std::span<const CopyLoop> copy_loops() {
  return kCopy;
}

}  // namespace modalkv
