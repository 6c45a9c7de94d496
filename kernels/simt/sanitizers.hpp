// What the address and thread sanitizers must be told of emulated threads; nothing without them.
#pragma once

#include <cstddef>

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif
// The emulator itself is compiled without -fsanitize=thread (see tests/CMakeLists.txt), so the
// build says by MODALKV_TSAN that the program has it.
#ifdef MODALKV_TSAN
#include <sanitizer/tsan_interface.h>
#endif

namespace modalkv::simt {

namespace asan {
#ifdef __SANITIZE_ADDRESS__
inline void leaving(void** fake_stack, const void* to, std::size_t bytes) {
  __sanitizer_start_switch_fiber(fake_stack, to, bytes);
}
inline void arrived(void* fake_stack, const void** from, std::size_t* bytes) {
  __sanitizer_finish_switch_fiber(fake_stack, from, bytes);
}
inline void forbid(const void* begin, std::size_t bytes) {
  __asan_poison_memory_region(begin, bytes);
}
inline void forget(const void* begin, std::size_t bytes) {
  __asan_unpoison_memory_region(begin, bytes);
}
#else
inline void leaving(void**, const void*, std::size_t) {}
inline void arrived(void*, const void**, std::size_t*) {}
inline void forbid(const void*, std::size_t) {}
inline void forget(const void*, std::size_t) {}
#endif
}  // namespace asan

namespace tsan {
#ifdef MODALKV_TSAN
inline void* make_fiber() {
  return __tsan_create_fiber(0);
}
inline void end_fiber(void* fiber) {
  __tsan_destroy_fiber(fiber);
}
inline void* current_fiber() {
  return __tsan_get_current_fiber();
}
// A switch orders nothing; barriers do.
inline void switch_to(void* fiber) {
  __tsan_switch_to_fiber(fiber, __tsan_switch_to_fiber_no_sync);
}
inline void release(void* at) {
  __tsan_release(at);
}
inline void acquire(void* at) {
  __tsan_acquire(at);
}
#else
inline void* make_fiber() {
  return nullptr;
}
inline void end_fiber(void*) {}
inline void* current_fiber() {
  return nullptr;
}
inline void switch_to(void*) {}
inline void release(void*) {}
inline void acquire(void*) {}
#endif
}  // namespace tsan

}  // namespace modalkv::simt
