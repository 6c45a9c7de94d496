// What lies on disk for a page: its bytes, unchanged, zeros up to whole blocks, and at the very end
// a seal that says whose they are. So a page is never served for another, whatever the index says.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "modalkv/error.hpp"
#include "offload/block_file.hpp"
#include "offload/page_key.hpp"

namespace modalkv {

inline constexpr Bytes kPageSealBytes = 128;

/// On disk. The seal mostly fits where whole blocks need filling anyway.
constexpr Bytes stored_bytes(const PageShape& shape) {
  return round_up(page_bytes(shape) + kPageSealBytes, kBlockBytes);
}

/// Fills `stored` (stored_bytes), whose first page_bytes are a page, up with zeros and the seal.
/// `checksum` where the page is not what was encoded.
Status seal_page(const PageKey& key, std::uint64_t generation, std::span<std::byte> stored);

/// `checksum` where `stored` is not this very page as it was sealed.
Status verify_sealed(const PageKey& key, std::uint64_t generation,
                     std::span<const std::byte> stored);

}  // namespace modalkv
