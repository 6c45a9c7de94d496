// Elements of one head in the registers of a warp, 8 tokens x 8 channels a lane. Where head_dim is
// at most 128, lane l has the octet of channels from 8 (l % 16) on, of the first or the second half
// of a tile of 16 tokens. Beyond ("wide"), it has the octet from 8 l on, and a tile takes two
// passes. So a row's 16 bytes are one load, a page's line takes 32 bytes of a lane's words side by
// side, and nothing goes through shared memory.
#pragma once

#include <algorithm>
#include <cstdint>

#include "kernels/cuda/gpu_launch.hpp"
#include "kernels/hadamard.hpp"
#include "kernels/key_bias.hpp"
#include "kernels/page_layout.hpp"
#include "kernels/simt/simt.hpp"

namespace modalkv::MODALKV_GPU {

inline constexpr int kWarpsOfABlock = 4;  ///< each with a head of its own
inline constexpr int kPageThreads = 32 * kWarpsOfABlock;
inline constexpr int kPageBlocks = 3;  ///< of a multiprocessor, at least: up to 168 registers
inline constexpr int kOctet = 8;

/// A known key bias as a kernel's parameter; elements nullptr: none.
struct DeviceBias {
  const float* elements = nullptr;
  const float* frequencies = nullptr;
  RopeSections sections{};
};

/// One page of a launch.
struct DevicePage {
  std::byte* page = nullptr;
  std::uint16_t* keys = nullptr;    ///< rows [tokens, kv_heads, head_dim]
  std::uint16_t* values = nullptr;  ///< the same
  const std::int32_t* positions = nullptr;
  int tokens = 0;
  bool aligned = false;  ///< rows, to 16 bytes
};

/// Pages of a launch, which are alike but for DevicePage.
struct PageBatch {
  static constexpr int kMost = 48;  // parameters of a kernel have 4 KiB

  PageShape shape{};
  PageLayout layout{shape};
  NumberFormat number = NumberFormat::fp16;  ///< of the rows
  float key_scale = 1, value_scale = 1;
  DeviceBias bias{};
  std::uint32_t* status = nullptr;
  std::uint64_t* sums = nullptr;  ///< a slot for each block; nullptr: not wanted
  DevicePage pages[kMost];
};

/// PageLayout of one side of one head, for kernels: its places within the head, and with few
/// divisions.
template <int bits, bool in_values>
struct SidePlaces {
  static constexpr int kDeep = 32 / bits;

  __device__ SidePlaces(const PageShape& shape, const PageLayout& layout, int head)
      : format(in_values ? shape.format.value : shape.format.key),
        lines(in_values ? layout.value_lines(head) : layout.key_lines(head)),
        metadata(in_values ? layout.value_metadata(head) : layout.key_metadata(head)),
        dims(shape.head_dim),
        tokens(static_cast<int>(shape.tokens)),
        group(static_cast<int>(group_elements(format, shape))),
        vector_groups((dims + group - 1) / group) {}

  /// The word of an element; with the seven rows behind it, 32 bytes.
  __device__ Bytes word(int token, int dim) const {
    const int row = in_values ? dim : token, depth = in_values ? token : dim;
    const int lines_of_row = (in_values ? tokens : dims) / kDeep;
    return lines + (row / kLineRows * lines_of_row + depth / kDeep) * static_cast<int>(kLineBytes) +
           row % kLineRows * 4;
  }
  /// Scales that lie in a row: of 16 tokens, or of all channels. The zeros follow.
  __device__ int scales_of_row() const { return format.per_channel ? dims : kLineRows; }
  /// The row of an element's scale.
  __device__ Bytes scale_row(int token, int dim) const {
    const int row =
        format.per_channel ? token / group : token / kLineRows * vector_groups + dim / group;
    return metadata + Bytes{row * scales_of_row() * (format.scale_bytes + format.zero_bytes)};
  }

  const ElementFormat format;
  const Bytes lines, metadata;
  const int dims, tokens, group, vector_groups;
};

/// Where a lane stands, in pass `pass` of a tile.
template <bool wide>
struct TileLane {
  static constexpr int kPasses = wide ? 2 : 1;
  static constexpr int kTokens = kLineRows / kPasses;  ///< of a pass

  int lane = static_cast<int>(threadIdx.x % 32);
  int octet = wide ? lane : lane % 16;

  __device__ int first_token(int pass) const { return (wide ? pass : lane / 16) * kOctet; }
  __device__ int first_channel() const { return octet * kOctet; }
};

/// [token][channel]
using LaneValues = float[kOctet][kOctet];

/// Eight elements of a row, 16 bits each, to floats.
__device__ inline void widen(const uint4& words, bool bf16, float (&to)[kOctet]) {
  const std::uint32_t all[4] = {words.x, words.y, words.z, words.w};
  SIMT_UNROLL
  for (int i = 0; i < 4; ++i) {
    to[2 * i] = bf16 ? simt::low_bf16(all[i]) : simt::low_f16(all[i]);
    to[2 * i + 1] = bf16 ? simt::high_bf16(all[i]) : simt::high_f16(all[i]);
  }
}

__device__ inline uint4 load_octet(const std::uint16_t* row, bool aligned) {
  if (aligned) return *reinterpret_cast<const uint4*>(row);
  std::uint32_t words[4];
  SIMT_UNROLL
  for (int i = 0; i < 4; ++i) words[i] = row[2 * i] | std::uint32_t{row[2 * i + 1]} << 16;
  return make_uint4(words[0], words[1], words[2], words[3]);
}

__device__ inline void store_octet(std::uint16_t* row, const uint4& octet, bool aligned) {
  if (aligned) {
    *reinterpret_cast<uint4*>(row) = octet;
    return;
  }
  const std::uint32_t words[4] = {octet.x, octet.y, octet.z, octet.w};
  SIMT_UNROLL
  for (int i = 0; i < 4; ++i) {
    row[2 * i] = static_cast<std::uint16_t>(words[i]);
    row[2 * i + 1] = static_cast<std::uint16_t>(words[i] >> 16);
  }
}

/// rotate_blocks() of the lanes' rows, operation by operation. All lanes.
__device__ inline void rotate_rows(LaneValues& values, int order) {
  const float scale = hadamard_scale(order);
  const int lane = static_cast<int>(threadIdx.x % 32);
  SIMT_UNROLL
  for (int t = 0; t < kOctet; ++t) {
    float(&row)[kOctet] = values[t];
    SIMT_UNROLL
    for (int apart = 1; apart < kOctet; apart *= 2) {
      SIMT_UNROLL
      for (int i = 0; i < kOctet; ++i) {
        if ((i & apart) != 0) continue;
        const float a = row[i], b = row[i + apart];
        row[i] = a + b;
        row[i + apart] = a - b;
      }
    }
  }
  for (int lanes = 1; lanes * kOctet < order; lanes *= 2) {
    const float sign = (lane & lanes) != 0 ? -1.0f : 1.0f;
    SIMT_UNROLL
    for (int t = 0; t < kOctet; ++t) {
      SIMT_UNROLL
      for (int i = 0; i < kOctet; ++i)
        values[t][i] = __shfl_xor_sync(~0u, values[t][i], lanes) + sign * values[t][i];
    }
  }
  SIMT_UNROLL
  for (int t = 0; t < kOctet; ++t) {
    SIMT_UNROLL
    for (int i = 0; i < kOctet; ++i) values[t][i] = values[t][i] * scale;
  }
}

/// Cosines and sines of a tile's tokens, [16][head_dim / 2], for all heads of the block. All
/// threads; begins and ends with a barrier.
__device__ inline void turn_tile(const DeviceBias& bias, const DevicePage& page, int head_dim,
                                 Tokens begin, float2* turns) {
  __syncthreads();
  const int pairs = head_dim / 2, axes = bias.sections.axes();
  for (int i = static_cast<int>(threadIdx.x); i < kLineRows * pairs; i += kPageThreads) {
    const int pair = i % pairs;
    const Tokens token = std::min<Tokens>(begin + i / pairs, page.tokens - 1);
    const std::int32_t position = page.positions[token * axes + bias.sections.axis(pair)];
    const Rotation turn = rotation(position, bias.frequencies[pair]);
    turns[i] = make_float2(turn.cosine, turn.sine);
  }
  __syncthreads();
}

/// Adds `sign` (1 or -1) times R(p) b to the lane's rows, operation by operation as rotated_bias().
/// `turns` are those of the lane's first token.
__device__ inline void add_bias(LaneValues& values, const float* bias, int head_dim,
                                const float2* turns, float sign, int first_channel) {
  if (first_channel >= head_dim) return;
  const int pairs = head_dim / 2;
  const bool upper = first_channel >= pairs;  // of the pair; an octet is on one side
  const int pair = upper ? first_channel - pairs : first_channel;
  float own[kOctet], partner[kOctet];
  SIMT_UNROLL
  for (int i = 0; i < kOctet; ++i) {
    own[i] = bias[first_channel + i];
    partner[i] = upper ? bias[pair + i] : -bias[pair + pairs + i];
  }
  SIMT_UNROLL
  for (int t = 0; t < kOctet; ++t) {
    SIMT_UNROLL
    for (int i = 0; i < kOctet; ++i) {
      const float2 turn = turns[t * pairs + pair + i];
      values[t][i] += sign * (own[i] * turn.x + partner[i] * turn.y);
    }
  }
}

}  // namespace modalkv::MODALKV_GPU
