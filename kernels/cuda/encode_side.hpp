// Encode: rows of K or of V to pages, in one pass. A block has one side of four heads, of a tile or
// a group of tokens of a page. Groups along tokens take a second look at their rows, which the
// cache still has.
//
// An element costs its two bytes and the page's bits. Instructions for INT4, by what the code says:
// conversion 1, range and finiteness 3, code 6, word 1; loads, stores, checksum and the fits of its
// group the rest. A rotation takes 10 more; a known bias 4 and, for four heads at once, a cosine
// and a sine in binary64 a token and pair.
#pragma once

#include "kernels/cuda/head_encoder.hpp"
#include "kernels/cuda/status_word.hpp"

namespace modalkv::MODALKV_GPU {

/// The blocks of one page: heads in fours, tiles or groups of tokens.
inline dim3 encode_blocks(const PageShape& shape, bool in_values) {
  const ElementFormat& format = in_values ? shape.format.value : shape.format.key;
  const std::int64_t tokens = format.per_channel ? group_elements(format, shape) : kLineRows;
  return {static_cast<unsigned>(divide_up(shape.kv_heads, kWarpsOfABlock)),
          static_cast<unsigned>(divide_up(shape.tokens, tokens)), 1};
}

/// `slots`: of a page in batch.sums; those of this side begin at `first_slot`.
GpuError encode_keys(const PageBatch& batch, int pages, int first_slot, int slots,
                     const GpuLaunch& launch);
GpuError encode_values(const PageBatch& batch, int pages, int first_slot, int slots,
                       const GpuLaunch& launch);

namespace {

template <class Coder, bool per_channel, bool in_values, bool wide>
__global__ void __launch_bounds__(kPageThreads, kPageBlocks)
    encode_side(const __grid_constant__ PageBatch batch, int first_slot, int slots) {
  using Encoder = HeadEncoder<Coder, per_channel, in_values, wide>;
  using Room = typename Encoder::Room;
  SIMT_DYNAMIC_SHARED(Room, rooms);
  if (has_failed(batch.status)) return;
  auto* turns = reinterpret_cast<float2*>(rooms + kWarpsOfABlock);
  const DevicePage& page = batch.pages[blockIdx.z];
  const int warp = static_cast<int>(threadIdx.x / 32);
  const int head = static_cast<int>(blockIdx.x) * kWarpsOfABlock + warp;
  const bool has_head = head < batch.shape.kv_heads;
  Encoder encoder(batch, page, head, rooms[warp], turns);
  const int step = per_channel ? encoder.group() : kLineRows;
  const Tokens begin = std::int64_t{blockIdx.y} * step;
  const Tokens end = std::min<Tokens>(begin + step, batch.shape.tokens);
  constexpr bool may_turn = !in_values && !Encoder::kHalves;
  for (int look = 0; look < (per_channel ? 2 : 1); ++look) {
    for (Tokens at = begin; at < end; at += kLineRows) {
      if (may_turn && batch.bias.elements != nullptr)
        turn_tile(batch.bias, page, batch.shape.head_dim, at, turns);
      if (!has_head) continue;
      for (int pass = 0; pass < Encoder::Lane::kPasses; ++pass) {
        encoder.load(at, pass);
        if constexpr (Encoder::kHalves) {
          encoder.check();
        } else if (!per_channel || look == 0) {
          encoder.find_ranges(at == begin && pass == 0);
          if (!per_channel) encoder.fit(at, pass);
        }
        if (!per_channel || look == 1) encoder.write(at, pass);
      }
      if (!per_channel && !Encoder::kHalves) encoder.write_metadata(at);
    }
    if (per_channel && look == 0 && has_head) {
      encoder.fit(begin, 0);
      encoder.write_metadata(begin);
    }
  }
  if (has_head && !encoder.is_good()) fail(batch.status, Status::rejected);
  const std::uint64_t sum = block_sum(encoder.sum());
  if (threadIdx.x == 0 && batch.sums != nullptr)
    batch
        .sums[std::int64_t{blockIdx.z} * slots + first_slot + blockIdx.y * gridDim.x + blockIdx.x] =
        sum;
}

template <class Coder, bool per_channel, bool in_values, bool wide>
GpuError launch_encode_side(const PageBatch& batch, int pages, int first_slot, int slots,
                            const GpuLaunch& launch) {
  dim3 grid = encode_blocks(batch.shape, in_values);
  grid.z = static_cast<unsigned>(pages);
  const bool turned = !in_values && batch.bias.elements != nullptr && Coder::kBits < 16;
  const auto pairs = static_cast<std::size_t>(batch.shape.head_dim / 2);
  const std::size_t shared = sizeof(EncoderRoom<wide>) * kWarpsOfABlock +
                             (turned ? sizeof(float2) * kLineRows * pairs : 0);
  return SIMT_LAUNCH((encode_side<Coder, per_channel, in_values, wide>), grid, kPageThreads, shared,
                     launch.stream, batch, first_slot, slots);
}

/// By the side's format and head_dim.
template <bool in_values>
GpuError encode_any(const PageBatch& batch, int pages, int first_slot, int slots,
                    const GpuLaunch& launch) {
  const ElementFormat& format = in_values ? batch.shape.format.value : batch.shape.format.key;
  const bool wide = batch.shape.head_dim > 128;
  const auto with = [&](auto coder) {
    using Coder = decltype(coder);
    if constexpr (Coder::kBits < 16) {
      if (format.per_channel)
        return wide ? launch_encode_side<Coder, true, in_values, true>(batch, pages, first_slot,
                                                                       slots, launch)
                    : launch_encode_side<Coder, true, in_values, false>(batch, pages, first_slot,
                                                                        slots, launch);
    }
    return wide ? launch_encode_side<Coder, false, in_values, true>(batch, pages, first_slot, slots,
                                                                    launch)
                : launch_encode_side<Coder, false, in_values, false>(batch, pages, first_slot,
                                                                     slots, launch);
  };
  switch (format.number) {
    case NumberFormat::fp16:
    case NumberFormat::bf16:
      return with(HalfCoder{});
    case NumberFormat::fp8_e4m3:
      return with(E4m3Coder{});
    case NumberFormat::nvfp4:
    case NumberFormat::mxfp4:
      return with(E2m1Coder{});
    case NumberFormat::int8:
      return with(IntegerCoder<8>{});
    case NumberFormat::int4:
      return with(IntegerCoder<4>{});
    case NumberFormat::int2:
      break;
  }
  return with(IntegerCoder<2>{});
}

}  // namespace
}  // namespace modalkv::MODALKV_GPU
