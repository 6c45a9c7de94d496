// A ceiling that leaves work out would be too high: the loops do all of what they are timed for.
#include "tools/bench/ceiling_loops.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>

namespace modalkv {
namespace {

TEST(CeilingLoops, ReadingDependsOnEveryByte) {
  alignas(64) static std::array<std::byte, 8192> memory;
  for (const ReadLoop& loop : read_loops()) {
    memory.fill(std::byte{0});
    const std::uint64_t before = loop.run(memory);
    for (std::size_t i = 0; i < memory.size(); ++i) {
      memory[i] = std::byte{1};
      ASSERT_NE(loop.run(memory), before) << loop.name << ", byte " << i;
      memory[i] = std::byte{0};
    }
  }
}

TEST(CeilingLoops, CopyingCopiesAllAndNoMore) {
  alignas(64) static std::array<std::byte, 4096> from;
  alignas(64) static std::array<std::byte, 4096 + 64> to;
  for (std::size_t i = 0; i < from.size(); ++i) from[i] = static_cast<std::byte>(i * 7 + i / 256);
  for (const CopyLoop& loop : copy_loops()) {
    to.fill(std::byte{0xee});
    loop.run(from, to.data());
    EXPECT_TRUE(std::equal(from.begin(), from.end(), to.begin())) << loop.name;
    for (std::size_t i = from.size(); i < to.size(); ++i)
      EXPECT_EQ(to[i], std::byte{0xee}) << loop.name;
  }
}

TEST(CeilingLoops, DotProductsAreComputedWhateverTheNumberOfTurns) {
  for (const DotProductLoop& loop : {dot_product_loop_16bit(), dot_product_loop_8bit()}) {
    EXPECT_GT(loop.operations_a_turn, 0);
    EXPECT_NE(loop.run(1), loop.run(3)) << loop.name;
  }
}

}  // namespace
}  // namespace modalkv
