// Where the bytes of an operation's address lie.
#pragma once

#include "kernels/effects.hpp"

namespace modalkv {

/// nullptr where there are no bytes.
template <typename T>
T* as(const Address& address, SpaceMemory memory) {
  if (address.bytes == 0) return nullptr;
  return reinterpret_cast<T*>(memory[address.space.index] + address.offset);
}

/// Bytes of the same.
inline std::byte* at(SpaceMemory memory, const Address& address) {
  return as<std::byte>(address, memory);
}

}  // namespace modalkv
