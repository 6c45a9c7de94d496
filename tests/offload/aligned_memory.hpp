// Memory that direct I/O accepts.
#pragma once

#include <cstddef>
#include <cstdlib>
#include <memory>
#include <span>

#include "offload/block_file.hpp"

namespace modalkv {

class AlignedMemory {
 public:
  explicit AlignedMemory(Bytes bytes)
      : bytes_(bytes),
        memory_(static_cast<std::byte*>(std::aligned_alloc(
                    kBlockBytes, static_cast<std::size_t>(round_up(bytes, kBlockBytes)))),
                &std::free) {}

  std::byte* data() const { return memory_.get(); }
  Bytes bytes() const { return bytes_; }
  std::span<std::byte> span() const { return {data(), static_cast<std::size_t>(bytes_)}; }

 private:
  Bytes bytes_;
  std::unique_ptr<std::byte, decltype(&std::free)> memory_;
};

}  // namespace modalkv
