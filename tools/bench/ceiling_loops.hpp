// The loops that find a machine's ceilings: nothing but loads, nothing but copies, nothing but
// multiply-adds. Chosen at run time by what this CPU can do; the binary runs on older ones.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

namespace modalkv {

/// Reads `from`, which is aligned to cache lines, and returns something that depends on all of it.
/// What does not fill the loop's streams (under a KiB) is left out.
struct ReadLoop {
  std::string_view name;
  std::uint64_t (*run)(std::span<const std::byte> from);
};

/// Copies `from`, whole cache lines, to a place that is aligned to them too.
struct CopyLoop {
  std::string_view name;
  void (*run)(std::span<const std::byte> from, std::byte* to);
};

/// Multiply-adds in registers, in chains that do not wait for each other.
struct DotProductLoop {
  std::string_view name;
  double operations_a_turn;  ///< a multiplication and an addition are two
  float (*run)(std::int64_t turns);
};

/// The widest of each that this CPU has. Which shape reads or copies fastest differs by machine:
/// measure them all.
std::span<const ReadLoop> read_loops();
std::span<const CopyLoop> copy_loops();

/// Dot products of 16-bit numbers: BF16 pairs, or FP32 where there is no such instruction.
DotProductLoop dot_product_loop_16bit();
/// Dot products of unsigned by signed bytes, or 32-bit integers where there is no such instruction.
DotProductLoop dot_product_loop_8bit();

}  // namespace modalkv
