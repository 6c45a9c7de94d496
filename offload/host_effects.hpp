// What an operation does, on several cores of the host where that is quicker.
#pragma once

#include <cstddef>
#include <optional>
#include <span>
#include <vector>

#include "kernels/effects.hpp"
#include "offload/host_attention.hpp"

namespace modalkv {

/// Of one queue of a host's cores. Its memory grows to what the largest operation has needed.
class HostEffects {
 public:
  /// The calling thread is one of them.
  explicit HostEffects(int threads) {
    if (threads > 1) attention_.emplace(threads);
  }
  /// A thread on each of these processors.
  explicit HostEffects(std::span<const int> cpus) { attention_.emplace(cpus); }

  /// As modalkv::perform(), but for Attend, which all threads divide: the same operation on as many
  /// threads gives the same bytes, on another number of threads others, all within the errors that
  /// attend() states. One call at a time.
  Status perform(const Op& op, SpaceMemory memory);

 private:
  std::optional<HostAttention> attention_;
  std::vector<const std::byte*> pages_;
};

}  // namespace modalkv
