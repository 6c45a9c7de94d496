// What every entry of the C API has to do: take structs of older and newer callers, and let no
// exception out.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <exception>
#include <new>
#include <span>
#include <string_view>
#include <type_traits>

#include "modalkv/error.hpp"
#include "modalkv/modalkv.h"

namespace modalkv {

/// No struct of the API, and no array, will ever be larger: more is garbage.
inline constexpr std::size_t kLargestStructBytes = 4096, kLargestArray = std::size_t{1} << 20;

/// As snprintf: at most `bytes` with the terminator; returns the length of the whole.
inline std::size_t put_text(std::string_view from, char* text, std::size_t bytes) {
  if (text == nullptr || bytes == 0) return from.size();
  text[from.copy(text, bytes - 1)] = '\0';
  return from.size();
}

/// Runs `call`; what it throws becomes a status and a line of text.
template <typename Call>
mkv_status guarded(std::span<char> text, Call&& call) noexcept {
  const auto say = [&](const char* what) { put_text(what, text.data(), text.size()); };
  say("");
  try {
    return call();
  } catch (const Error& error) {
    say(error.what());
    return MKV_ERROR;
  } catch (const std::bad_alloc&) {
    say("the process is out of memory");
    return MKV_NO_SPACE;
  } catch (const std::exception& error) {
    say(error.what());
  } catch (...) {
    say("an unknown exception");
  }
  return MKV_INTERNAL;
}

/// Of a struct that begins with it; 0: none that can be.
template <typename Struct>
std::size_t size_of(const Struct* from) {
  static_assert(std::is_trivially_copyable_v<Struct> && offsetof(Struct, size) == 0);
  if (from == nullptr) return 0;
  std::size_t size;
  std::memcpy(&size, from, sizeof(size));
  return size < sizeof(size) || size > kLargestStructBytes ? 0 : size;
}

/// What a caller gave: fields that it does not know are zero, and those that we do not know must
/// be.
template <typename Struct>
mkv_status read_struct(const Struct* from, Struct& to) {
  const std::size_t size = size_of(from);
  if (size == 0) return MKV_REJECTED;
  const auto* bytes = reinterpret_cast<const std::byte*>(from);
  to = {};
  std::memcpy(&to, bytes, std::min(size, sizeof(Struct)));
  const bool is_known = std::all_of(bytes + std::min(size, sizeof(Struct)), bytes + size,
                                    [](std::byte byte) { return byte == std::byte{0}; });
  return is_known ? MKV_OK : MKV_UNSUPPORTED;
}

/// The same for an array; `use(struct)` of each, in order, until one is not MKV_OK.
template <typename Struct, typename Use>
mkv_status read_array(const Struct* from, std::size_t count, Use&& use) {
  if (count == 0) return MKV_OK;
  const std::size_t size = size_of(from);
  if (size == 0 || count > kLargestArray) return MKV_REJECTED;
  const auto* bytes = reinterpret_cast<const std::byte*>(from);
  for (std::size_t i = 0; i < count; ++i) {
    const auto* at = reinterpret_cast<const Struct*>(bytes + i * size);
    if (size_of(at) != size) return MKV_REJECTED;
    Struct one;
    if (const mkv_status status = read_struct(at, one); status != MKV_OK) return status;
    if (const mkv_status status = use(one); status != MKV_OK) return status;
  }
  return MKV_OK;
}

/// Fills what the caller has room for, zero where we have nothing. Check `size_of(to)` before.
template <typename Struct>
void write_struct(Struct from, Struct* to) {
  from.size = size_of(to);
  auto* bytes = reinterpret_cast<std::byte*>(to);
  const std::size_t known = std::min(from.size, sizeof(Struct));
  std::fill(bytes + known, bytes + from.size, std::byte{0});
  std::memcpy(bytes, &from, known);
}

}  // namespace modalkv
