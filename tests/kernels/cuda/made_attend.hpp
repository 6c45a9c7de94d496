// Attend operations over made-up lists in an emulated GPU's memory.
#pragma once

#include <algorithm>
#include <numeric>
#include <random>
#include <vector>

#include "kernels/cuda/attention_launch.hpp"
#include "kernels/simt/launch.hpp"
#include "tests/kernels/cuda/gpu_memory.hpp"
#include "tests/kernels/made_lists.hpp"

namespace modalkv {

/// The pages of a list in an order of their own, with a table of where they lie.
struct PlacedPages {
  Address pages, table;
};

inline PlacedPages place_pages(GpuMemory& memory, const MadeList& list, std::uint64_t seed) {
  const Bytes bytes = page_bytes(list.shape);
  std::vector<std::int64_t> table(list.addresses.size());
  std::iota(table.begin(), table.end(), std::int64_t{1});  // a page that is not listed comes first
  std::shuffle(table.begin(), table.end(), std::mt19937_64(seed));
  const Address pages = memory.room(bytes * static_cast<Bytes>(table.size() + 1));
  for (std::size_t i = 0; i < table.size(); ++i) {
    table[i] *= bytes;
    std::memcpy(memory.at(pages) + table[i], list.addresses[i], static_cast<std::size_t>(bytes));
  }
  return {pages, memory.put(table, 8)};
}

inline Address put_queries(GpuMemory& memory, const MadeQueries& made) {
  std::vector<std::uint16_t> rows;
  for (Tokens token = 0; token < made.tokens; ++token) {
    const auto from = made.elements.begin() + token * made.token_stride();
    rows.insert(rows.end(), from, from + std::int64_t{made.heads} * made.head_dim);
  }
  return memory.put(rows, 2);
}

/// What Attend and Score have in common.
template <typename OverPages>
OverPages make_over_pages(GpuMemory& memory, const MadeList& list, const MadeQueries& made,
                          std::uint64_t seed = 1) {
  const PlacedPages placed = place_pages(memory, list, seed);
  OverPages op;
  op.queries = put_queries(memory, made);
  op.pages = placed.pages;
  op.page_table = placed.table;
  op.partials = memory.room(partial_bytes(made.rows(), made.head_dim), 4);
  op.shape = list.shape;
  op.tokens = list.tokens;
  op.query_heads = made.heads;
  op.query_tokens = static_cast<std::int32_t>(made.tokens);
  op.input = made.number;
  op.logit_scale = made.queries().scale;
  op.window = made.window;
  if (!made.positions.empty()) {
    op.query_positions = memory.put(made.positions, 4);
    op.token_positions = memory.put(list.positions, 4);
  }
  op.hidden = memory.put(list.hidden, 8);
  if (const KeyBias* bias = list.known_bias.bias) {
    const auto dims = static_cast<std::size_t>(list.shape.head_dim);
    const auto heads = static_cast<std::size_t>(list.shape.kv_heads);
    op.key_bias = {memory.put(std::span(bias->elements, heads * dims), 4),
                   memory.put(std::span(bias->frequencies, dims / 2), 4),
                   memory.put(list.known_bias.positions, 4), bias->sections};
  }
  return op;
}

/// A launch, and what it may use.
struct OnGpu {
  int multiprocessors = 2;
  std::size_t scratch_bytes = std::size_t{1} << 20;
  simt::Emulation::Options emulation{};

  /// Runs launch(GpuLaunch) and returns the status word. Scratch has red zones of its own.
  template <typename Launch>
  Status run(Launch launch) const {
    constexpr std::size_t kRoom = 512;
    std::vector<std::byte> scratch(scratch_bytes + 2 * kRoom, std::byte{0x5a});
    const auto address = reinterpret_cast<std::uintptr_t>(scratch.data());
    const std::size_t begin = kRoom - address % 256;
    std::uint32_t status = 0;
    const simt::Emulation emulated(emulation);
    const GpuLaunch on{.stream = nullptr,
                       .status = &status,
                       .scratch = std::span(scratch).subspan(begin, scratch_bytes),
                       .multiprocessors = multiprocessors};
    EXPECT_EQ(launch(on), 0);
    const auto red = [](std::span<const std::byte> zone) {
      return std::all_of(zone.begin(), zone.end(),
                         [](std::byte b) { return b == std::byte{0x5a}; });
    };
    EXPECT_TRUE(red(std::span(scratch).first(begin))) << "before scratch";
    EXPECT_TRUE(red(std::span(scratch).subspan(begin + scratch_bytes))) << "after scratch";
    return static_cast<Status>(status);
  }
};

inline Status run_attend(GpuMemory& memory, std::span<const Attend> ops, const OnGpu& gpu = {}) {
  const std::vector<std::byte*> spaces = memory.spaces();
  const Status status =
      gpu.run([&](const GpuLaunch& on) { return emulated_gpu::launch_attend(ops, spaces, on); });
  memory.expect_whole_red_zones();
  return status;
}

/// The formats that have kernels of their own.
inline std::vector<KvFormat> listed_formats() {
  ElementFormat int4_channel = int4_token_head();
  int4_channel.per_channel = true;
  return {both(fp16()),
          both(bf16()),
          both(fp8_e4m3()),
          both(int8_token_head()),
          both(int4_token_head()),
          both(int4_grouped(64)),
          both(int4_grouped(32)),
          {int8_token_head(), int4_token_head()},
          {int4_channel, int4_token_head()},
          both(int2_grouped(64)),
          both(nvfp4()),
          both(mxfp4())};
}

}  // namespace modalkv
