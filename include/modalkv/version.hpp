// The version of these headers, and that of the library they are linked with.
#pragma once

#include <compare>

namespace modalkv {

struct Version {
  int major_number = 0;
  int minor_number = 0;
  int patch_number = 0;

  friend constexpr auto operator<=>(const Version&, const Version&) = default;
};

/// Of the headers in use. Equal major and minor numbers: source and binary compatible.
inline constexpr Version kHeaderVersion{0, 1, 0};

/// Of the library linked in; any thread. Differs from kHeaderVersion where another one is loaded.
Version library_version() noexcept;

}  // namespace modalkv
