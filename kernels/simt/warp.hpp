// What the lanes of an emulated warp do together.
#pragma once

#include <cstdint>

#include "kernels/simt/block.hpp"

namespace modalkv::simt {

/// A lane gets the `count` (at most 4) words of lane `source`, in place.
void shuffle(unsigned mask, std::uint32_t* words, int count, unsigned source, Where where);

/// The lanes whose `predicate` holds. `orders`: memory accesses of the lanes, too (__syncwarp).
unsigned ballot(unsigned mask, bool predicate, bool orders, Where where);

/// d += a * b, 16 x 8 x 16, by the fragments of mma.m16n8k16: `wide` tells a 16-bit operand's
/// value.
void multiply_accumulate(float (&d)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2],
                         float (*wide)(std::uint16_t), Where where);

/// ldmatrix.x4: lane l gives the address of row l % 8 of matrix l / 8, 16 bytes; it gets of every
/// matrix elements 2 * (l % 4) and the next of row l / 4, or with `transposed` of column l / 4.
void load_matrices(std::uint32_t (&words)[4], const void* row, bool transposed, Where where);

}  // namespace modalkv::simt
