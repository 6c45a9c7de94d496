// What an operation means on bytes: one function, the measure of every backend.
#pragma once

#include <cstddef>
#include <span>

#include "kernels/attention.hpp"
#include "modalkv/error.hpp"
#include "modalkv/op.hpp"

namespace modalkv {

/// Where the spaces of a device lie in this process, by SpaceId.
using SpaceMemory = std::span<std::byte* const>;

/// Performs `op` on the calling thread. The operation must have been validated against the sizes of
/// the spaces, and nobody else may touch what it accesses meanwhile.
///   ok           done
///   checksum     Verify found other bytes
///   rejected     Encode met an element that is not finite or beyond the format, or Attend or
///                Score a page out of bounds; what it writes is undefined
///   unsupported  nothing was done: EngineWork is the engine's
/// Allocates nothing.
Status perform(const Op& op, SpaceMemory memory);

/// Attend in the words of attend(), for who divides its work. The list refers to `bias`.
struct AttendOperands {
  Queries queries;
  KeyBias bias;
  PageList list;
  std::span<float> partials;
};

/// `pages` has room for the address of each page and is referred to. `rejected`: as perform().
Status find_operands(const Attend& op, SpaceMemory memory, std::span<const std::byte*> pages,
                     AttendOperands& operands);

}  // namespace modalkv
