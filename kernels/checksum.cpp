#include "kernels/checksum.hpp"

#include <bit>

#include "kernels/encode_targets.hpp"

namespace modalkv {

static_assert(std::endian::native == std::endian::little, "pages are little-endian");

std::uint64_t checksum(std::span<const std::byte> bytes) {
  return encode_targets().front()->checksum(bytes);
}

}  // namespace modalkv
