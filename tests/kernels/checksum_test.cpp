#include "kernels/checksum.hpp"

#include <gtest/gtest.h>

#include <random>
#include <set>
#include <vector>

namespace modalkv {
namespace {

std::vector<std::byte> random_bytes(std::size_t count, std::uint64_t seed) {
  std::mt19937_64 random(seed);
  std::vector<std::byte> bytes(count);
  for (std::byte& byte : bytes) byte = static_cast<std::byte>(random());
  return bytes;
}

TEST(Checksum, IsDefinedOperationByOperation) {
  // Worked out from the definition with arbitrary-precision arithmetic.
  EXPECT_EQ(checksum({}), 0u);
  std::vector<std::byte> bytes;
  for (int i = 0; i < 11; ++i) bytes.push_back(static_cast<std::byte>(i + 1));
  EXPECT_EQ(checksum(bytes), 0x22812900ff03fb8eu);
}

TEST(Checksum, EveryBitLengthAndOrderMatters) {
  const auto bytes = random_bytes(333, 1);
  std::set<std::uint64_t> seen{checksum(bytes)};
  for (std::size_t bit = 0; bit < bytes.size() * 8; ++bit) {
    auto changed = bytes;
    changed[bit / 8] ^= static_cast<std::byte>(1u << bit % 8);
    EXPECT_TRUE(seen.insert(checksum(changed)).second) << "bit " << bit;
  }
  for (std::size_t length = 0; length < bytes.size(); ++length)
    EXPECT_TRUE(seen.insert(checksum({bytes.data(), length})).second) << length;
  auto swapped = bytes;
  std::swap_ranges(swapped.begin(), swapped.begin() + 8, swapped.begin() + 64);
  EXPECT_TRUE(seen.insert(checksum(swapped)).second);
  const std::vector<std::byte> zeros(64);
  for (std::size_t length = 1; length <= zeros.size(); ++length)
    EXPECT_TRUE(seen.insert(checksum({zeros.data(), length})).second) << length << " zeros";
}

TEST(Checksum, DoesNotDependOnAlignment) {
  const auto bytes = random_bytes(100, 2);
  for (std::size_t shift = 0; shift < 8; ++shift) {
    std::vector<std::byte> moved(shift);
    moved.insert(moved.end(), bytes.begin(), bytes.end());
    EXPECT_EQ(checksum(std::span(moved).subspan(shift)), checksum(bytes));
  }
}

}  // namespace
}  // namespace modalkv
