// What this processor has, as far as several kernels ask for the same.
#pragma once

#if defined(__x86_64__)
#include <cpuid.h>

namespace modalkv {

/// AVX2 and F16C, whose name __builtin_cpu_supports() of some compilers does not know.
inline bool has_avx2() {
  unsigned a = 0, b = 0, c = 0, d = 0;
  return __builtin_cpu_supports("avx2") && __get_cpuid(1, &a, &b, &c, &d) != 0 &&
         (c & 1u << 29) != 0;
}
/// With all that came with the first servers that had it.
inline bool has_avx512() {
  return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}
/// For use after has_avx2(): only __builtin_cpu_supports() asks the operating system too.
inline bool has_avx_vnni() {
  unsigned a = 0, b = 0, c = 0, d = 0;
  return __get_cpuid_count(7, 1, &a, &b, &c, &d) != 0 && (a & 1u << 4) != 0;
}

}  // namespace modalkv
#endif
