#include "kernels/encode_targets.hpp"

#include "kernels/processor.hpp"

namespace modalkv {
namespace {

bool always() {
  return true;
}

#if defined(__x86_64__)
bool has_avx2() {
  return __builtin_cpu_supports("avx2") && has_f16c();
}
bool has_avx512() {
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}
#endif

constexpr EncodeTarget kTargets[] = {
#if defined(__x86_64__)
    {"avx512", encode_avx512, checksum_avx512, has_avx512},
    {"avx2", encode_avx2, checksum_avx2, has_avx2},
#endif
    {"portable", encode_portable, checksum_portable, always},
};

}  // namespace

std::span<const EncodeTarget> encode_targets() {
  static const std::span<const EncodeTarget> here = [] {
    // A processor that runs one runs those behind it.
    std::size_t first = 0;
    while (!kTargets[first].runs_here()) ++first;
    return std::span(kTargets).subspan(first);
  }();
  return here;
}

}  // namespace modalkv
