// Decode: pages are checked, then a warp turns tiles of one side of a head back to rows. Bytes in
// and out are the cost; about 12 instructions an element.
#include <algorithm>

#include "kernels/cuda/byte_sums.hpp"
#include "kernels/cuda/head_decoder.hpp"
#include "kernels/cuda/op_memory.hpp"
#include "kernels/cuda/page_launch.hpp"
#include "kernels/cuda/status_word.hpp"

namespace modalkv::MODALKV_GPU {
namespace {

template <int bits, bool in_values, bool wide>
__global__ void __launch_bounds__(kPageThreads, kPageBlocks)
    decode_side(const __grid_constant__ PageBatch batch) {
  SIMT_DYNAMIC_SHARED(float2, turns);
  if (has_failed(batch.status)) return;
  const DevicePage& page = batch.pages[blockIdx.z];
  const int head = static_cast<int>(blockIdx.x * kWarpsOfABlock + threadIdx.x / 32);
  const int dims = batch.shape.head_dim;
  const Tokens begin = std::int64_t{blockIdx.y} * kLineRows;
  if (begin >= page.tokens) return;
  constexpr bool may_turn = !in_values && bits < 16;
  if (may_turn && batch.bias.elements != nullptr) turn_tile(batch.bias, page, dims, begin, turns);
  if (head >= batch.shape.kv_heads) return;
  HeadDecoder<bits, in_values, wide> decoder(batch, page, head);
  for (int pass = 0; pass < TileLane<wide>::kPasses; ++pass) {
    decoder.load(begin, pass);
    if constexpr (may_turn) decoder.undo_transform(turns + decoder.first_token(pass) * (dims / 2));
    decoder.store(begin, pass);
  }
}

template <int bits, bool in_values, bool wide>
GpuError launch_decode_side(const PageBatch& batch, int pages, const GpuLaunch& launch) {
  const PageShape& shape = batch.shape;
  const dim3 grid(static_cast<unsigned>(divide_up(shape.kv_heads, kWarpsOfABlock)),
                  static_cast<unsigned>(shape.tokens / kLineRows), static_cast<unsigned>(pages));
  const bool turned = !in_values && bits < 16 && batch.bias.elements != nullptr;
  const std::size_t shared =
      turned ? sizeof(float2) * kLineRows * static_cast<std::size_t>(shape.head_dim / 2) : 0;
  return SIMT_LAUNCH((decode_side<bits, in_values, wide>), grid, kPageThreads, shared,
                     launch.stream, batch);
}

template <bool in_values>
GpuError decode_any(const PageBatch& batch, int pages, const GpuLaunch& launch) {
  const bool wide = batch.shape.head_dim > 128;
  const auto with = [&](auto bits) {
    return wide ? launch_decode_side<bits(), in_values, true>(batch, pages, launch)
                : launch_decode_side<bits(), in_values, false>(batch, pages, launch);
  };
  const KvFormat& format = batch.shape.format;
  switch (payload_bits(in_values ? format.value.number : format.key.number)) {
    case 16:
      return with(std::integral_constant<int, 16>{});
    case 8:
      return with(std::integral_constant<int, 8>{});
    case 4:
      return with(std::integral_constant<int, 4>{});
    default:
      return with(std::integral_constant<int, 2>{});
  }
}

}  // namespace

bool alike(const Decode& a, const Decode& b) {
  return a.shape == b.shape && a.output == b.output && a.key_scale == b.key_scale &&
         a.value_scale == b.value_scale && a.key_bias.elements == b.key_bias.elements &&
         a.key_bias.frequencies == b.key_bias.frequencies &&
         a.key_bias.sections == b.key_bias.sections;
}

GpuError launch_decode(std::span<const Decode> ops, SpaceMemory memory, const GpuLaunch& launch) {
  const Decode& first = ops.front();
  const PageLayout layout(first.shape);
  const Bytes trailer = layout.trailer();
  PageBatch batch{.shape = first.shape,
                  .layout = layout,
                  .number = first.output,
                  .key_scale = first.key_scale,
                  .value_scale = first.value_scale,
                  .bias = {reinterpret_cast<const float*>(at(memory, first.key_bias.elements)),
                           reinterpret_cast<const float*>(at(memory, first.key_bias.frequencies)),
                           first.key_bias.sections},
                  .status = launch.status,
                  .sums = nullptr,
                  .pages = {}};
  while (!ops.empty()) {
    const std::size_t count =
        std::min<std::size_t>({ops.size(), PageBatch::kMost, kConclusionsOfALaunch});
    Conclusion checks[kConclusionsOfALaunch];
    for (std::size_t i = 0; i < count; ++i) {
      const Decode& op = ops[i];
      auto* keys = reinterpret_cast<std::uint16_t*>(at(memory, op.keys));
      auto* values = reinterpret_cast<std::uint16_t*>(at(memory, op.values));
      const auto places =
          reinterpret_cast<std::uintptr_t>(keys) | reinterpret_cast<std::uintptr_t>(values);
      std::byte* page = at(memory, op.page);
      batch.pages[i] = {page,
                        keys,
                        values,
                        reinterpret_cast<const std::int32_t*>(at(memory, op.key_bias.positions)),
                        static_cast<int>(op.tokens),
                        places % 16 == 0};
      checks[i] = {.begin = page,
                   .at = page + trailer,
                   .bytes = trailer + kTrailerChecksum,
                   .tokens = op.tokens,
                   .kind = Conclusion::Kind::page,
                   .lenient = true};
    }
    const auto pages = static_cast<int>(count);
    if (const GpuError error = sum_and_conclude(std::span(checks).first(count), launch))
      return error;
    if (const GpuError error = decode_any<false>(batch, pages, launch)) return error;
    if (const GpuError error = decode_any<true>(batch, pages, launch)) return error;
    ops = ops.subspan(count);
  }
  return 0;
}

}  // namespace modalkv::MODALKV_GPU
