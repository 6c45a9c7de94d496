#include "kernels/checksum.hpp"

#include <bit>
#include <cstring>

namespace modalkv {
namespace {

static_assert(std::endian::native == std::endian::little, "pages are little-endian");

constexpr std::uint64_t kGolden = 0x9e3779b97f4a7c15;

constexpr std::uint64_t mix(std::uint64_t x) {
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
  x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
  return x ^ (x >> 31);
}

}  // namespace

std::uint64_t checksum(std::span<const std::byte> bytes) {
  std::uint64_t sum = mix(bytes.size());
  std::uint64_t position = 0;
  const auto add = [&](const std::byte* at, std::size_t count) {
    std::uint64_t word = 0;
    std::memcpy(&word, at, count);
    position += kGolden;
    sum += mix(word + position);
  };
  const std::size_t whole = bytes.size() / 8 * 8;
  for (std::size_t i = 0; i < whole; i += 8) add(bytes.data() + i, 8);
  if (whole < bytes.size()) add(bytes.data() + whole, bytes.size() - whole);
  return sum;
}

}  // namespace modalkv
