// What is stored, evicted and reloaded together: the pages of a segment, or a part of them.
#pragma once

#include <cstdint>

namespace modalkv {

/// Handle of a unit. Opaque: whoever stores units numbers them, and never gives a number twice to
/// what is not the same content.
enum class UnitId : std::uint64_t {};

}  // namespace modalkv
