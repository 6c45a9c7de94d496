#include "kernels/simt/fiber.hpp"

#include <sys/mman.h>

#include <new>

#include "kernels/simt/sanitizers.hpp"

namespace modalkv::simt {
namespace context = boost::context::detail;
namespace {

// Kernels keep little on the stack; sanitized frames are several times as large. The lowest page
// stays out of reach, so that an overflow is a fault.
constexpr std::size_t kStackBytes = 256 << 10;
constexpr std::size_t kGuardBytes = 4096;

}  // namespace

Fiber::Fiber(Body body, void* argument) : body_(body), argument_(argument) {
  void* memory = mmap(nullptr, kStackBytes, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_STACK, -1, 0);
  if (memory == MAP_FAILED) throw std::bad_alloc();
  stack_ = static_cast<std::byte*>(memory);
  mprotect(stack_, kGuardBytes, PROT_NONE);
  inside_ = context::make_fcontext(stack_ + kStackBytes, kStackBytes - kGuardBytes, enter);
  inner_thread_ = tsan::make_fiber();
}

Fiber::~Fiber() {
  tsan::end_fiber(inner_thread_);
  asan::forget(stack_ + kGuardBytes, kStackBytes - kGuardBytes);
  munmap(stack_, kStackBytes);
}

void Fiber::enter(context::transfer_t from) {
  auto& self = *static_cast<Fiber*>(from.data);
  self.outside_ = from.fctx;
  asan::arrived(nullptr, &self.outer_stack_, &self.outer_stack_bytes_);
  self.body_(self.argument_);
}

void Fiber::resume() {
  outer_thread_ = tsan::current_fiber();
  void* fake_stack = nullptr;
  asan::leaving(&fake_stack, stack_ + kGuardBytes, kStackBytes - kGuardBytes);
  tsan::switch_to(inner_thread_);
  inside_ = context::jump_fcontext(inside_, this).fctx;
  asan::arrived(fake_stack, nullptr, nullptr);
}

void Fiber::pause() {
  void* fake_stack = nullptr;
  asan::leaving(&fake_stack, outer_stack_, outer_stack_bytes_);
  tsan::switch_to(outer_thread_);
  outside_ = context::jump_fcontext(outside_, nullptr).fctx;
  asan::arrived(fake_stack, &outer_stack_, &outer_stack_bytes_);
}

}  // namespace modalkv::simt
