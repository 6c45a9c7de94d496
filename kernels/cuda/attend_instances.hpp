// Makes the kernels of a pair of formats; included by the files that divide them among compilers.
#pragma once

#include <type_traits>

#include "kernels/cuda/attend_formats.hpp"
#include "kernels/cuda/attend_kernel.hpp"

namespace modalkv::MODALKV_GPU {

/// Row tiles of a wide kernel: as many as its outputs and its sums of zeros leave registers for, on
/// every GPU: sm_100 and sm_120 take more of them than others.
template <class K, class V, int dims>
constexpr int wide_row_tiles() {
  constexpr int kMost = 256 / dims;
  constexpr bool kMore = K::kElement.per_channel || scaled_groups<V>(dims) > 1;
  return kMore && kMost > 2 ? 2 : kMost;
}

template <class Tile>
constexpr AttendKernelSize size_of() {
  return {Tile::kRows, Tile::kWarps, Tile::kTiles, Tile::kWantedBlocks};
}

template <class Tile>
GpuError launch_tile(const AttendLaunch& launch, int splits, void* stream) {
  const AttendShape& shape = launch.shape;
  const auto blocks = divide_up(shape.head_rows(), Tile::kRows) * shape.page.kv_heads;
  const bool lacks_bias = launch.task[0].bias_positions != nullptr;
  return SIMT_LAUNCH(attend_kernel<Tile>,
                     (dim3{static_cast<unsigned>(blocks), static_cast<unsigned>(splits), 1}),
                     (dim3{Tile::kThreads, 1, 1}),
                     static_cast<std::size_t>(Tile::dynamic_bytes(lacks_bias)), stream, launch);
}

/// use(std::type_identity<Tile>) of the kernel for a head dimension and rows.
template <class K, class V, class Use>
auto with_tile(int head_dim, int head_rows, Use use) {
  const auto of = [&]<int dims>(std::integral_constant<int, dims>) {
    using Narrow = AttendTile<K, V, dims, 1>;
    using Wide = AttendTile<K, V, dims, wide_row_tiles<K, V, dims>()>;
    return head_rows <= 8 ? use(std::type_identity<Narrow>{}) : use(std::type_identity<Wide>{});
  };
  return head_dim <= 64    ? of(std::integral_constant<int, 64>{})
         : head_dim <= 128 ? of(std::integral_constant<int, 128>{})
                           : of(std::integral_constant<int, 256>{});
}

template <ElementFormat key, ElementFormat value>
constexpr AttendFormat attend_format() {
  using K = FixedFormat<key>;
  using V = FixedFormat<value>;
  return {[](const KvFormat& format) { return format.key == key && format.value == value; },
          [](int head_dim, int head_rows) {
            return with_tile<K, V>(head_dim, head_rows, []<class Tile>(std::type_identity<Tile>) {
              return size_of<Tile>();
            });
          },
          [](const AttendLaunch& launch, int splits, void* stream) {
            return with_tile<K, V>(launch.shape.page.head_dim, launch.shape.head_rows(),
                                   [&]<class Tile>(std::type_identity<Tile>) {
                                     return launch_tile<Tile>(launch, splits, stream);
                                   });
          }};
}

}  // namespace modalkv::MODALKV_GPU
