// Integers at byte offsets of records on disk.
#pragma once

#include <bit>
#include <cstddef>
#include <cstring>
#include <span>
#include <type_traits>

namespace modalkv {

static_assert(std::endian::native == std::endian::little, "files are little endian");

template <typename T>
void put(std::span<std::byte> to, std::size_t at, T value) {
  static_assert(std::is_trivially_copyable_v<T>);
  std::memcpy(to.subspan(at, sizeof(T)).data(), &value, sizeof(T));
}

template <typename T>
T get(std::span<const std::byte> from, std::size_t at) {
  static_assert(std::is_trivially_copyable_v<T>);
  T value;
  std::memcpy(&value, from.subspan(at, sizeof(T)).data(), sizeof(T));
  return value;
}

}  // namespace modalkv
