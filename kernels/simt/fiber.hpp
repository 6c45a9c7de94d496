// A stack of its own that runs until it pauses: one emulated GPU thread. The sanitizers are told of
// every switch.
#pragma once

#include <boost/context/detail/fcontext.hpp>
#include <cstddef>

namespace modalkv::simt {

class Fiber {
 public:
  using Body = void (*)(void* argument);

  /// `body` must not return. Throws std::bad_alloc.
  Fiber(Body body, void* argument);
  ~Fiber();
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;

  /// Runs it until it pauses. From outside.
  void resume();
  /// Back to who resumed it. From inside.
  void pause();

 private:
  static void enter(boost::context::detail::transfer_t from);

  Body body_;
  void* argument_;
  std::byte* stack_;
  boost::context::detail::fcontext_t inside_ = nullptr, outside_ = nullptr;
  // Of the sanitizers: the stack outside, and the two threads as ThreadSanitizer knows them.
  const void* outer_stack_ = nullptr;
  std::size_t outer_stack_bytes_ = 0;
  void* inner_thread_ = nullptr;
  void* outer_thread_ = nullptr;
};

}  // namespace modalkv::simt
