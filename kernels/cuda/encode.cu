// Encode: both sides of pages, then their trailers.
#include <algorithm>

#include "kernels/cuda/encode_side.hpp"
#include "kernels/cuda/op_memory.hpp"
#include "kernels/cuda/page_launch.hpp"

namespace modalkv::MODALKV_GPU {
bool alike(const Encode& a, const Encode& b) {
  return a.shape == b.shape && a.input == b.input && a.key_scale == b.key_scale &&
         a.value_scale == b.value_scale && a.key_bias.elements == b.key_bias.elements &&
         a.key_bias.frequencies == b.key_bias.frequencies &&
         a.key_bias.sections == b.key_bias.sections;
}

GpuError launch_encode(std::span<const Encode> ops, SpaceMemory memory, const GpuLaunch& launch) {
  const Encode& first = ops.front();
  const PageShape& shape = first.shape;
  const PageLayout layout(shape);
  const dim3 of_keys = encode_blocks(shape, false), of_values = encode_blocks(shape, true);
  const std::size_t key_slots = std::size_t{of_keys.x} * of_keys.y;
  const std::size_t slots = key_slots + std::size_t{of_values.x} * of_values.y;
  const std::size_t room = launch.scratch.size() / sizeof(std::uint64_t);
  // Pages with more blocks than there is scratch are read again for their checksums.
  const bool in_slots = slots <= room;
  auto* sums = reinterpret_cast<std::uint64_t*>(launch.scratch.data());
  PageBatch batch{.shape = shape,
                  .layout = layout,
                  .number = first.input,
                  .key_scale = first.key_scale,
                  .value_scale = first.value_scale,
                  .bias = {reinterpret_cast<const float*>(at(memory, first.key_bias.elements)),
                           reinterpret_cast<const float*>(at(memory, first.key_bias.frequencies)),
                           first.key_bias.sections},
                  .status = launch.status,
                  .sums = in_slots ? sums : nullptr,
                  .pages = {}};
  const std::size_t most = std::min<std::size_t>(kConclusionsOfALaunch, PageBatch::kMost);
  while (!ops.empty()) {
    std::size_t count = std::min(ops.size(), most);
    if (in_slots) count = std::min(count, room / slots);
    Conclusion conclusions[kConclusionsOfALaunch];
    for (std::size_t i = 0; i < count; ++i) {
      const Encode& op = ops[i];
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
      conclusions[i] = {.begin = page,
                        .at = page + layout.trailer(),
                        .bytes = layout.key_metadata(shape.kv_heads),
                        .content = op.content,
                        .generation = op.generation,
                        .tokens = op.tokens,
                        .kind = Conclusion::Kind::seal};
    }
    const auto pages = static_cast<int>(count), slots_of_a_page = static_cast<int>(slots);
    if (const GpuError error = encode_keys(batch, pages, 0, slots_of_a_page, launch)) return error;
    if (const GpuError error =
            encode_values(batch, pages, static_cast<int>(key_slots), slots_of_a_page, launch))
      return error;
    const std::span made = std::span(conclusions).first(count);
    if (const GpuError error = in_slots ? conclude(made, sums, slots_of_a_page, launch)
                                        : sum_and_conclude(made, launch))
      return error;
    ops = ops.subspan(count);
  }
  return 0;
}

}  // namespace modalkv::MODALKV_GPU
