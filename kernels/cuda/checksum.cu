// Bytes are read once; 2.5 operations a byte. 16 bytes a thread and step where they are aligned.
#include <algorithm>

#include "kernels/cuda/byte_sums.hpp"
#include "kernels/cuda/op_memory.hpp"
#include "kernels/cuda/page_launch.hpp"
#include "kernels/cuda/status_word.hpp"
#include "kernels/page_layout.hpp"

namespace modalkv::MODALKV_GPU {
namespace {

constexpr int kThreads = 256;

struct Conclusions {
  std::uint32_t* status;
  std::uint64_t* sums;
  int slots;
  Conclusion tasks[kConclusionsOfALaunch];
};

// The word at a byte, filled up by zeros behind the end; at any alignment.
__device__ std::uint64_t word_at(const std::byte* begin, Bytes at, Bytes bytes) {
  std::uint64_t word = 0;
  for (int i = 0; i < 8 && at + i < bytes; ++i)
    word |= std::uint64_t{static_cast<std::uint8_t>(begin[at + i])} << (8 * i);
  return word;
}

__global__ void __launch_bounds__(kThreads)
    sum_bytes(const __grid_constant__ Conclusions conclusions) {
  if (has_failed(conclusions.status)) return;
  const Conclusion& task = conclusions.tasks[blockIdx.y];
  const Bytes step = Bytes{16} * kThreads * gridDim.x;
  const bool aligned = reinterpret_cast<std::uintptr_t>(task.begin) % 16 == 0;
  std::uint64_t sum = 0;
  for (Bytes at = Bytes{16} * (blockIdx.x * kThreads + threadIdx.x); at < task.bytes; at += step) {
    if (aligned && at + 16 <= task.bytes) {
      const uint4 words = *reinterpret_cast<const uint4*>(task.begin + at);
      sum += checksum_term(words.x | std::uint64_t{words.y} << 32, at);
      sum += checksum_term(words.z | std::uint64_t{words.w} << 32, at + 8);
    } else {
      sum += checksum_term(word_at(task.begin, at, task.bytes), at);
      if (at + 8 < task.bytes)
        sum += checksum_term(word_at(task.begin, at + 8, task.bytes), at + 8);
    }
  }
  sum = block_sum(sum);
  if (threadIdx.x == 0) conclusions.sums[blockIdx.y * conclusions.slots + blockIdx.x] = sum;
}

__device__ void store_bytes(std::byte* to, std::uint64_t value) {
  for (int i = 0; i < 8; ++i) to[i] = static_cast<std::byte>(value >> (8 * i));
}

__device__ std::uint64_t trailer_word(const Conclusion& task, int word) {
  if (word < 4) return task.content.words[static_cast<std::size_t>(word)];
  return word == 4 ? task.generation : word == 5 ? static_cast<std::uint64_t>(task.tokens) : 0;
}

// Whether a trailer says what it should.
__device__ bool is_expected(const Conclusion& task) {
  const auto* trailer = reinterpret_cast<const std::uint64_t*>(task.at);
  bool expected = task.tokens < 0 || static_cast<std::uint32_t>(trailer[kTrailerTokens / 8]) ==
                                         static_cast<std::uint32_t>(task.tokens);
  for (int word = 0; word < 5 && !task.lenient; ++word)
    expected = expected && trailer[word] == trailer_word(task, word);
  return expected;
}

// A warp for each task.
__global__ void __launch_bounds__(32)
    conclude_sums(const __grid_constant__ Conclusions conclusions) {
  if (has_failed(conclusions.status)) return;
  const Conclusion& task = conclusions.tasks[blockIdx.x];
  const int lane = static_cast<int>(threadIdx.x);
  const std::uint64_t* slots = conclusions.sums + std::int64_t{conclusions.slots} * blockIdx.x;
  std::uint64_t sum = 0;
  for (int i = lane; i < conclusions.slots; i += 32) sum += slots[i];
  Bytes bytes = task.bytes;
  if (task.kind == Conclusion::Kind::seal) {
    auto* trailer = reinterpret_cast<std::uint64_t*>(task.at);
    const Bytes end = task.at - task.begin;
    for (Bytes at = bytes + 8 * lane; at < end; at += 8 * 32) {
      *reinterpret_cast<std::uint64_t*>(task.at - end + at) = 0;
      sum += checksum_term(0, at);
    }
    bytes = end + kTrailerChecksum;
    if (lane < kTrailerChecksum / 8) {
      trailer[lane] = trailer_word(task, lane);
      sum += checksum_term(trailer_word(task, lane), end + 8 * lane);
    }
  }
  sum = warp_sum(sum) + checksum_mix(static_cast<std::uint64_t>(bytes));
  if (lane != 0) return;
  switch (task.kind) {
    case Conclusion::Kind::store:
      store_bytes(task.at, sum);
      break;
    case Conclusion::Kind::compare:
      if (word_at(task.at, 0, 8) != sum) fail(conclusions.status, Status::checksum);
      break;
    case Conclusion::Kind::page:
      if (word_at(task.at, kTrailerChecksum, kTrailerChecksum + 8) != sum || !is_expected(task))
        fail(conclusions.status, Status::checksum);
      break;
    case Conclusion::Kind::seal:
      store_bytes(task.at + kTrailerChecksum, sum);
      break;
  }
}

Conclusions parameters(std::span<const Conclusion> tasks, std::uint64_t* sums, int slots,
                       const GpuLaunch& launch) {
  Conclusions all{launch.status, sums, slots, {}};
  std::copy(tasks.begin(), tasks.end(), all.tasks);
  return all;
}

}  // namespace

GpuError conclude(std::span<const Conclusion> tasks, const std::uint64_t* sums, int slots,
                  const GpuLaunch& launch) {
  return SIMT_LAUNCH(conclude_sums, static_cast<unsigned>(tasks.size()), 32, 0, launch.stream,
                     parameters(tasks, const_cast<std::uint64_t*>(sums), slots, launch));
}

GpuError sum_and_conclude(std::span<const Conclusion> tasks, const GpuLaunch& launch) {
  auto* sums = reinterpret_cast<std::uint64_t*>(launch.scratch.data());
  const auto room = static_cast<Bytes>(launch.scratch.size()) / 8 / kConclusionsOfALaunch;
  while (!tasks.empty()) {
    const auto some = tasks.first(std::min<std::size_t>(tasks.size(), kConclusionsOfALaunch));
    tasks = tasks.subspan(some.size());
    Bytes longest = 0;
    for (const Conclusion& task : some) longest = std::max(longest, task.bytes);
    // Some steps for each block, and a few blocks for each multiprocessor in all.
    const Bytes busy = divide_up(8 * launch.multiprocessors, static_cast<Bytes>(some.size()));
    const auto slots = static_cast<int>(std::clamp<Bytes>(
        std::min(busy, longest / (16 * kThreads * 2)), 1, std::max<Bytes>(room, 1)));
    const Conclusions all = parameters(some, sums, slots, launch);
    const dim3 grid(static_cast<unsigned>(slots), static_cast<unsigned>(some.size()));
    if (const GpuError error = SIMT_LAUNCH(sum_bytes, grid, kThreads, 0, launch.stream, all))
      return error;
    if (const GpuError error = conclude(some, sums, slots, launch)) return error;
  }
  return 0;
}

namespace {

// Launches `ops` in handfuls, each as the task that `make` makes of it.
template <class Op, class Make>
GpuError in_handfuls(std::span<const Op> ops, const GpuLaunch& launch, Make make) {
  Conclusion tasks[kConclusionsOfALaunch];
  while (!ops.empty()) {
    const std::size_t count = std::min<std::size_t>(ops.size(), kConclusionsOfALaunch);
    std::transform(ops.begin(), ops.begin() + static_cast<std::ptrdiff_t>(count), tasks, make);
    if (const GpuError error = sum_and_conclude(std::span(tasks).first(count), launch))
      return error;
    ops = ops.subspan(count);
  }
  return 0;
}

}  // namespace

GpuError launch_checksum(std::span<const Checksum> ops, SpaceMemory memory,
                         const GpuLaunch& launch) {
  return in_handfuls(ops, launch, [&](const Checksum& op) {
    return Conclusion{.begin = at(memory, op.of), .at = at(memory, op.to), .bytes = op.of.bytes};
  });
}

GpuError launch_verify(std::span<const Verify> ops, SpaceMemory memory, const GpuLaunch& launch) {
  return in_handfuls(ops, launch, [&](const Verify& op) {
    return Conclusion{.begin = at(memory, op.of),
                      .at = at(memory, op.expected),
                      .bytes = op.of.bytes,
                      .kind = Conclusion::Kind::compare};
  });
}

GpuError launch_verify_page(std::span<const VerifyPage> ops, SpaceMemory memory,
                            const GpuLaunch& launch) {
  return in_handfuls(ops, launch, [&](const VerifyPage& op) {
    const Bytes trailer = op.page.bytes - kPageTrailerBytes;
    return Conclusion{.begin = at(memory, op.page),
                      .at = at(memory, op.page) + trailer,
                      .bytes = trailer + kTrailerChecksum,
                      .content = op.content,
                      .generation = op.generation,
                      .tokens = -1,
                      .kind = Conclusion::Kind::page};
  });
}

}  // namespace modalkv::MODALKV_GPU
