// Large memory for measurements: in huge pages, and no more than there is.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <string_view>

#include "modalkv/units.hpp"

namespace modalkv {

/// What can still be allocated without swapping: the kernel's estimate or what is left of the
/// memory limit of the process's control group, whichever is less.
Bytes available_memory_bytes();

/// Throws Error, naming `what` and both sizes, where `bytes` are more than nine tenths of what is
/// available.
void require_memory(Bytes bytes, std::string_view what);

/// Zeroed bytes aligned to huge pages, which the kernel is asked to use (madvise): translation
/// misses must not be mistaken for the speed of memory.
class HugeBuffer {
 public:
  explicit HugeBuffer(Bytes bytes);
  ~HugeBuffer();
  HugeBuffer(HugeBuffer&& other) noexcept;
  HugeBuffer& operator=(HugeBuffer&&) = delete;

  std::span<std::byte> bytes() { return bytes_; }
  std::span<const std::byte> bytes() const { return bytes_; }

 private:
  std::span<std::byte> bytes_;
};

}  // namespace modalkv
