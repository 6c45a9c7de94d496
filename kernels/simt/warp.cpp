#include "kernels/simt/warp.hpp"

#include <bit>
#include <cstring>

namespace modalkv::simt {
namespace {

bool has(unsigned mask, unsigned lane) {
  return (mask >> lane & 1) != 0;
}

// The lane's two words of a pointer.
template <class Pointer>
void put(Thread& lane, std::size_t word, Pointer pointer) {
  const auto bits = std::bit_cast<std::uint64_t>(pointer);
  lane.given[word] = static_cast<std::uint32_t>(bits);
  lane.given[word + 1] = static_cast<std::uint32_t>(bits >> 32);
}

template <class Pointer>
Pointer get(const Thread& lane, std::size_t word) {
  return std::bit_cast<Pointer>(std::uint64_t{lane.given[word + 1]} << 32 | lane.given[word]);
}

std::uint16_t half(std::uint32_t word, unsigned i) {
  return static_cast<std::uint16_t>(word >> (16 * i));
}

void exchange_words(Thread* lanes, unsigned mask) {
  for (unsigned l = 0; l < kWarpLanes; ++l) {
    if (!has(mask, l)) continue;
    const Thread& source = lanes[lanes[l].given[4] & (kWarpLanes - 1)];
    for (std::size_t i = 0; i < 4; ++i) lanes[l].got[i] = source.given[i];
  }
}

void exchange_predicates(Thread* lanes, unsigned mask) {
  unsigned votes = 0;
  for (unsigned l = 0; l < kWarpLanes; ++l)
    if (has(mask, l) && lanes[l].given[0] != 0) votes |= 1u << l;
  for (unsigned l = 0; l < kWarpLanes; ++l)
    if (has(mask, l)) lanes[l].got[0] = votes;
}

// PTX ISA, "Matrix Fragments for mma.m16n8k16 with floating point type". With g = lane / 4 and
// t = lane % 4: A's words hold rows g and g + 8 at k = 2t, then both at k = 2t + 8; B's hold column
// g at k = 2t and 2t + 8; D's floats rows g (two) and g + 8 (two) at columns 2t and 2t + 1.
void multiply_lanes(Thread* lanes, unsigned) {
  const auto wide = get<float (*)(std::uint16_t)>(lanes[0], 6);
  float a[16][16];
  float b[8][16];
  for (unsigned l = 0; l < kWarpLanes; ++l) {
    const unsigned g = l / 4, k = l % 4 * 2;
    const auto& words = lanes[l].given;
    for (unsigned i = 0; i < 2; ++i) {
      a[g][k + i] = wide(half(words[0], i));
      a[g + 8][k + i] = wide(half(words[1], i));
      a[g][k + 8 + i] = wide(half(words[2], i));
      a[g + 8][k + 8 + i] = wide(half(words[3], i));
      b[g][k + i] = wide(half(words[4], i));
      b[g][k + 8 + i] = wide(half(words[5], i));
    }
  }
  for (unsigned l = 0; l < kWarpLanes; ++l) {
    for (unsigned i = 0; i < 4; ++i) {
      const unsigned row = l / 4 + (i < 2 ? 0 : 8), column = l % 4 * 2 + i % 2;
      float sum = 0;
      for (unsigned k = 0; k < 16; ++k) sum += a[row][k] * b[column][k];
      lanes[l].got[i] = std::bit_cast<std::uint32_t>(sum);
    }
  }
}

void load_rows(Thread* lanes, bool transposed) {
  for (unsigned l = 0; l < kWarpLanes; ++l) {
    for (unsigned m = 0; m < 4; ++m) {
      std::uint16_t pair[2];
      for (unsigned i = 0; i < 2; ++i) {
        const unsigned along = l % 4 * 2 + i, across = l / 4;
        const unsigned row = transposed ? along : across, column = transposed ? across : along;
        const auto* from = get<const std::uint16_t*>(lanes[m * 8 + row], 0);
        std::memcpy(&pair[i], from + column, sizeof pair[i]);
      }
      lanes[l].got[m] = pair[0] | std::uint32_t{pair[1]} << 16;
    }
  }
}

void load_as_is(Thread* lanes, unsigned) {
  load_rows(lanes, false);
}
void load_transposed(Thread* lanes, unsigned) {
  load_rows(lanes, true);
}

}  // namespace

void shuffle(unsigned mask, std::uint32_t* words, int count, unsigned source, Where where) {
  Block& block = Block::current();
  Thread& self = block.thread();
  if (!has(mask, source)) block.fail("a shuffle from a lane outside the mask", where);
  for (int i = 0; i < count; ++i) self.given[static_cast<std::size_t>(i)] = words[i];
  self.given[4] = source;
  block.meet(mask, exchange_words, false, where);
  for (int i = 0; i < count; ++i) words[i] = self.got[static_cast<std::size_t>(i)];
}

unsigned ballot(unsigned mask, bool predicate, bool orders, Where where) {
  Block& block = Block::current();
  Thread& self = block.thread();
  self.given[0] = predicate ? 1 : 0;
  block.meet(mask, exchange_predicates, orders, where);
  return self.got[0];
}

void multiply_accumulate(float (&d)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2],
                         float (*wide)(std::uint16_t), Where where) {
  Block& block = Block::current();
  Thread& self = block.thread();
  for (std::size_t i = 0; i < 4; ++i) self.given[i] = a[i];
  for (std::size_t i = 0; i < 2; ++i) self.given[4 + i] = b[i];
  put(self, 6, wide);
  block.meet(~0u, multiply_lanes, false, where);
  for (std::size_t i = 0; i < 4; ++i) d[i] += std::bit_cast<float>(self.got[i]);
}

void load_matrices(std::uint32_t (&words)[4], const void* row, bool transposed, Where where) {
  Block& block = Block::current();
  Thread& self = block.thread();
  if (std::bit_cast<std::uintptr_t>(row) % 16 != 0)
    block.fail("a matrix row that is not aligned to 16 bytes", where);
  put(self, 0, row);
  block.meet(~0u, transposed ? load_transposed : load_as_is, false, where);
  for (std::size_t i = 0; i < 4; ++i) words[i] = self.got[i];
}

}  // namespace modalkv::simt
