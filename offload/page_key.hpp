// Who a page on disk is: all that decides its bytes, in full. Equal keys, equal pages.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "modalkv/page.hpp"
#include "modalkv/token.hpp"

namespace modalkv {

struct PageKey {
  ContentId content{};     ///< of the segment, chained with everything before it
  std::int32_t layer = 0;  ///< of the model
  std::int32_t page = 0;   ///< of the segment's pages in this layer and shape
  PageShape shape{};

  friend constexpr bool operator==(const PageKey&, const PageKey&) = default;
};

inline constexpr std::size_t kPageKeyBytes = 64;

/// Whether it names a page: shared content, not negative, a shape that there is.
bool is_key(const PageKey& key);

/// As it lies on disk, little endian; all of it has a meaning or is zero.
void write_key(const PageKey& key, std::span<std::byte, kPageKeyBytes> to);
/// None where the bytes are no key.
std::optional<PageKey> read_key(std::span<const std::byte, kPageKeyBytes> from);

struct PageKeyHash {
  std::size_t operator()(const PageKey& key) const;
};

}  // namespace modalkv
