// What this processor has that __builtin_cpu_supports() of some compilers does not know by name.
#pragma once

#if defined(__x86_64__)
#include <cpuid.h>

namespace modalkv {

// For use after __builtin_cpu_supports("avx2"), which asks the operating system too.
inline bool has_f16c() {
  unsigned a = 0, b = 0, c = 0, d = 0;
  return __get_cpuid(1, &a, &b, &c, &d) != 0 && (c & 1u << 29) != 0;
}
inline bool has_avx_vnni() {
  unsigned a = 0, b = 0, c = 0, d = 0;
  return __get_cpuid_count(7, 1, &a, &b, &c, &d) != 0 && (a & 1u << 4) != 0;
}

}  // namespace modalkv
#endif
