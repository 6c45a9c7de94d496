#include "offload/page_seal.hpp"

#include <algorithm>
#include <array>

#include "kernels/checksum.hpp"
#include "kernels/page_codec.hpp"
#include "offload/little_endian.hpp"

namespace modalkv {
namespace {

// | magic 8 | generation 8 | checksum of the page 8 | key 64 | zeros | checksum 8 |
constexpr std::uint64_t kMagic = 0x6c61657376616d6d;  // "mmavseal"
constexpr std::size_t kGeneration = 8, kPage = 16, kKey = 24, kChecksum = 120;
using Seal = std::array<std::byte, kPageSealBytes>;

// All that a seal says follows from what is sealed: it is compared, not read.
Seal make_seal(const PageKey& key, std::uint64_t generation, std::span<const std::byte> page) {
  Seal seal{};
  put(seal, 0, kMagic);
  put(seal, kGeneration, generation);
  put(seal, kPage, get<std::uint64_t>(page, page.size() - kPageTrailerBytes + kTrailerChecksum));
  write_key(key, std::span(seal).subspan<kKey, kPageKeyBytes>());
  put(seal, kChecksum, checksum(std::span(seal).first<kChecksum>()));
  return seal;
}

}  // namespace

Status seal_page(const PageKey& key, std::uint64_t generation, std::span<std::byte> stored) {
  const auto page = stored.first(static_cast<std::size_t>(page_bytes(key.shape)));
  if (const Status status = verify_page(page); status != Status::ok) return status;
  std::fill(stored.begin() + static_cast<std::ptrdiff_t>(page.size()), stored.end(), std::byte{0});
  const Seal seal = make_seal(key, generation, page);
  std::copy(seal.begin(), seal.end(), stored.last<kPageSealBytes>().begin());
  return Status::ok;
}

Status verify_sealed(const PageKey& key, std::uint64_t generation,
                     std::span<const std::byte> stored) {
  const auto page = stored.first(static_cast<std::size_t>(page_bytes(key.shape)));
  const Seal seal = make_seal(key, generation, page);
  if (!std::equal(seal.begin(), seal.end(), stored.last<kPageSealBytes>().begin()))
    return Status::checksum;
  return verify_page(page);
}

}  // namespace modalkv
