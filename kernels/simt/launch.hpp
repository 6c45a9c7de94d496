// Launching a grid of emulated blocks.
#pragma once

#include <cstdint>
#include <functional>

#include "kernels/simt/block.hpp"

namespace modalkv::simt {

/// How the calling thread's launches are emulated, while it lives; the innermost counts.
class Emulation {
 public:
  struct Options {
    std::uint64_t seed = 0;  ///< of the order of blocks, warps and lanes; 0: the natural one
    unsigned workers = 1;    ///< threads of the host that run blocks
  };
  explicit Emulation(const Options& options);
  ~Emulation();
  Emulation(const Emulation&) = delete;
  Emulation& operator=(const Emulation&) = delete;

 private:
  Options options_;
  const Options* outer_;
};

/// Runs `body` once for each thread of the grid and waits for all. Throws Misuse (block.hpp).
void launch_grid(const char* kernel, Index grid, Index block, std::size_t dynamic_shared_bytes,
                 const std::function<void()>& body);

}  // namespace modalkv::simt
