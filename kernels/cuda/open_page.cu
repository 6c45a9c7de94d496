// Append and Close (kernels/open_page.hpp): a thread for two channels of a token and head, of K and
// of V. Few bytes: what counts is that there is one launch for many pages.
#include <algorithm>

#include "kernels/cuda/byte_sums.hpp"
#include "kernels/cuda/lane_tile.hpp"
#include "kernels/cuda/op_memory.hpp"
#include "kernels/cuda/page_launch.hpp"
#include "kernels/cuda/status_word.hpp"

namespace modalkv::MODALKV_GPU {
namespace {

constexpr int kThreads = 256;

/// Tokens of an open page.
struct OpenPage {
  std::byte* page;
  const std::uint16_t* keys;  // nullptr: zeros
  const std::uint16_t* values;
  int first, tokens;
};

struct OpenPages {
  static constexpr int kMost = 64;

  PageShape shape;
  PageLayout layout;
  NumberFormat number;  // of the rows
  std::uint32_t* status;
  OpenPage pages[kMost];
};

__device__ bool is_finite(std::uint16_t code, NumberFormat number) {
  const std::uint16_t exponent = number == NumberFormat::bf16 ? 0x7f80 : 0x7c00;
  return (code & exponent) != exponent;
}

// As a page of `to` numbers holds it.
__device__ std::uint16_t converted(std::uint16_t code, NumberFormat from, NumberFormat to) {
  return from == to ? code : to_16bit(from_16bit(code, from), to);
}

// Two neighbours of rows, as a page of `to` numbers holds them; zeros where there are no rows.
__device__ std::uint32_t pair_at(const std::uint16_t* rows, std::int64_t pair, NumberFormat from,
                                 NumberFormat to, bool& good) {
  if (rows == nullptr) return 0;
  const std::uint16_t low = rows[2 * pair], high = rows[2 * pair + 1];
  const std::uint16_t to_low = converted(low, from, to), to_high = converted(high, from, to);
  good = good && is_finite(low, from) && is_finite(high, from) && is_finite(to_low, to) &&
         is_finite(to_high, to);
  return to_low | std::uint32_t{to_high} << 16;
}

__global__ void __launch_bounds__(kThreads) write_rows(const __grid_constant__ OpenPages batch) {
  if (has_failed(batch.status)) return;
  const PageShape& shape = batch.shape;
  const OpenPage& open = batch.pages[blockIdx.y];
  const int pairs = shape.head_dim / 2, of_a_token = shape.kv_heads * pairs;
  const std::int64_t count = std::int64_t{open.tokens} * of_a_token;
  bool good = true;
  for (std::int64_t i = std::int64_t{blockIdx.x} * kThreads + threadIdx.x; i < count;
       i += std::int64_t{gridDim.x} * kThreads) {
    const auto row = static_cast<int>(i / of_a_token), in_token = static_cast<int>(i % of_a_token);
    const int head = in_token / pairs, dim = in_token % pairs * 2;
    const Tokens token = open.first + row;
    const std::uint32_t key = pair_at(open.keys, i, batch.number, shape.format.key.number, good);
    const SidePlaces<16, false> keys(shape, batch.layout, head);
    *reinterpret_cast<std::uint32_t*>(open.page + keys.word(static_cast<int>(token), dim)) = key;
    const std::uint32_t value =
        pair_at(open.values, i, batch.number, shape.format.value.number, good);
    const SidePlaces<16, true> values(shape, batch.layout, head);
    // Two channels' words, of which this token has a half.
    auto* halves = reinterpret_cast<std::uint16_t*>(
        open.page + values.word(static_cast<int>(token), dim) + token % 2 * 2);
    halves[0] = static_cast<std::uint16_t>(value);
    halves[2] = static_cast<std::uint16_t>(value >> 16);
  }
  if (!good) fail(batch.status, Status::rejected);
}

GpuError launch_rows(const OpenPages& batch, int count, const GpuLaunch& launch) {
  std::int64_t most = 0;
  for (int i = 0; i < count; ++i) most = std::max<std::int64_t>(most, batch.pages[i].tokens);
  most *= std::int64_t{batch.shape.kv_heads} * batch.shape.head_dim / 2;
  if (most == 0) return 0;
  const std::int64_t busy = divide_up(8 * launch.multiprocessors, count);
  const dim3 grid(static_cast<unsigned>(std::min(divide_up(most, kThreads), busy)),
                  static_cast<unsigned>(count));
  return SIMT_LAUNCH(write_rows, grid, kThreads, 0, launch.stream, batch);
}

}  // namespace

bool alike(const Append& a, const Append& b) {
  return a.shape == b.shape && a.input == b.input;
}
bool alike(const Close& a, const Close& b) {
  return a.shape == b.shape;
}

GpuError launch_append(std::span<const Append> ops, SpaceMemory memory, const GpuLaunch& launch) {
  const PageShape& shape = ops.front().shape;
  OpenPages batch{shape, PageLayout(shape), ops.front().input, launch.status, {}};
  while (!ops.empty()) {
    const std::size_t count = std::min<std::size_t>(ops.size(), OpenPages::kMost);
    Fill opened[OpenPages::kMost];
    std::size_t fills = 0;
    for (std::size_t i = 0; i < count; ++i) {
      const Append& op = ops[i];
      batch.pages[i] = {at(memory, op.page),
                        reinterpret_cast<const std::uint16_t*>(at(memory, op.keys)),
                        reinterpret_cast<const std::uint16_t*>(at(memory, op.values)),
                        static_cast<int>(op.first), static_cast<int>(op.tokens)};
      if (op.first == 0) opened[fills++] = {op.page, 0};
    }
    if (fills > 0)
      if (const GpuError error = launch_fill(std::span(opened).first(fills), memory, launch))
        return error;
    if (const GpuError error = launch_rows(batch, static_cast<int>(count), launch)) return error;
    ops = ops.subspan(count);
  }
  return 0;
}

GpuError launch_close(std::span<const Close> ops, SpaceMemory memory, const GpuLaunch& launch) {
  const PageShape& shape = ops.front().shape;
  OpenPages batch{shape, PageLayout(shape), shape.format.key.number, launch.status, {}};
  const Bytes trailer = batch.layout.trailer();
  while (!ops.empty()) {
    const std::size_t count =
        std::min<std::size_t>({ops.size(), OpenPages::kMost, kConclusionsOfALaunch});
    Conclusion conclusions[kConclusionsOfALaunch];
    for (std::size_t i = 0; i < count; ++i) {
      const Close& op = ops[i];
      std::byte* page = at(memory, op.page);
      batch.pages[i] = {page, nullptr, nullptr, static_cast<int>(op.tokens),
                        static_cast<int>(shape.tokens - op.tokens)};
      conclusions[i] = {.begin = page,
                        .at = page + trailer,
                        .bytes = trailer,
                        .content = op.content,
                        .generation = op.generation,
                        .tokens = op.tokens,
                        .kind = Conclusion::Kind::seal};
    }
    if (const GpuError error = launch_rows(batch, static_cast<int>(count), launch)) return error;
    if (const GpuError error = sum_and_conclude(std::span(conclusions).first(count), launch))
      return error;
    ops = ops.subspan(count);
  }
  return 0;
}

}  // namespace modalkv::MODALKV_GPU
