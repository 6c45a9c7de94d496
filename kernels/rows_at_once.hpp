// How many query rows share what attention loads. A sanitizer makes the code of many rows take
// minutes to compile; three go through all of it.
#pragma once

#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define MODALKV_SANITIZED
#endif
#elif defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define MODALKV_SANITIZED
#endif

namespace modalkv {

constexpr int rows_at_once([[maybe_unused]] int registers_allow) {
#if defined(MODALKV_SANITIZED)
  return 3;
#else
  return registers_allow;
#endif
}

}  // namespace modalkv
