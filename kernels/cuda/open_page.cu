// Append and Close (kernels/open_page.hpp): a thread for two channels of a token and head, of K and
// of V. Few bytes: what counts is that there is one launch for many pages.
#include <algorithm>

#include "kernels/cuda/byte_sums.hpp"
#include "kernels/cuda/lane_tile.hpp"
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

__global__ void __launch_bounds__(kThreads) write_rows(const __grid_constant__ OpenPages batch) {
  if (has_failed(batch.status)) return;
  const PageShape& shape = batch.shape;
  const OpenPage& open = batch.pages[blockIdx.y];
  const PageLayout layout(shape);
  const int pairs = shape.head_dim / 2, of_a_token = shape.kv_heads * pairs;
  const std::int64_t count = std::int64_t{open.tokens} * of_a_token;
  bool good = true;
  for (std::int64_t i = std::int64_t{blockIdx.x} * kThreads + threadIdx.x; i < count;
       i += std::int64_t{gridDim.x} * kThreads) {
    const auto row = static_cast<int>(i / of_a_token), in_token = static_cast<int>(i % of_a_token);
    const int head = in_token / pairs, dim = in_token % pairs * 2;
    for (const bool in_values : {false, true}) {
      const NumberFormat number = in_values ? shape.format.value.number : shape.format.key.number;
      const std::uint16_t* rows = in_values ? open.values : open.keys;
      std::uint16_t codes[2] = {};
      for (int c = 0; c < 2 && rows != nullptr; ++c) {
        const std::uint16_t code = rows[2 * i + c];
        codes[c] = converted(code, batch.number, number);
        good = good && is_finite(code, batch.number) && is_finite(codes[c], number);
      }
      const Tokens token = open.first + row;
      if (in_values) {
        for (int c = 0; c < 2; ++c) {
          const ElementPlace place = layout.value(head, token, dim + c);
          *reinterpret_cast<std::uint16_t*>(open.page + place.word + place.bit / 8) = codes[c];
        }
      } else {
        *reinterpret_cast<std::uint32_t*>(open.page + layout.key(head, token, dim).word) =
            codes[0] | std::uint32_t{codes[1]} << 16;
      }
    }
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

std::byte* at(SpaceMemory memory, const Address& address) {
  return memory[address.space.index] + address.offset;
}

}  // namespace

bool alike(const Append& a, const Append& b) {
  return a.shape == b.shape && a.input == b.input;
}
bool alike(const Close& a, const Close& b) {
  return a.shape == b.shape;
}

GpuError launch_append(std::span<const Append> ops, SpaceMemory memory, const GpuLaunch& launch) {
  OpenPages batch{ops.front().shape, ops.front().input, launch.status, {}};
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
  OpenPages batch{shape, shape.format.key.number, launch.status, {}};
  const Bytes trailer = PageLayout(shape).trailer();
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
