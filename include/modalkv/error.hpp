// Three kinds of failure, decided once:
//   a bug                               -> a check fails, aborts with a message;
//   set-up, input, environment          -> modalkv::Error, one line that says what to do;
//   an expected outcome on a data path  -> [[nodiscard]] Status.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>
#include <string_view>

namespace modalkv {

/// Bad input or environment. `what()` is one line: where, what was found, what was expected.
class Error : public std::runtime_error {
 public:
  explicit Error(const std::string& message) : std::runtime_error(message) {}
};

/// Outcome of an operation on the data path. Values are stable; new ones are added at the end.
enum class [[nodiscard]] Status : std::uint8_t{
    ok,
    busy,         ///< a bounded queue is full; nothing was taken over; try again after a completion
    rejected,     ///< malformed or out of bounds; nothing was taken over; trying again cannot help
    unsupported,  ///< this backend does not do this operation
    io_error,     ///< the backend failed; destination bytes are undefined
    checksum,     ///< bytes do not match their checksum
    timeout,      ///< not done within its bound
    cancelled,    ///< not done: asked to stop, or something it waited for failed
    no_space,     ///< no memory or file is left for it, and nothing under way that will free some
};

constexpr std::string_view name(Status status) {
  constexpr std::string_view names[] = {"ok",          "busy",      "rejected",
                                        "unsupported", "io error",  "checksum",
                                        "timeout",     "cancelled", "no space"};
  return names[static_cast<std::uint8_t>(status)];
}

}  // namespace modalkv
