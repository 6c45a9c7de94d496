// Merge, Finish and Score on the emulated GPU, beside the host's and the reference.
#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <string>

#include "kernels/token_scores.hpp"
#include "tests/kernels/cuda/made_attend.hpp"
#include "tests/kernels/formats.hpp"

namespace modalkv {
namespace {

constexpr float kNever = -std::numeric_limits<float>::infinity();

std::vector<float> made_partials(std::int64_t rows, int dims, std::uint64_t seed) {
  std::mt19937_64 random(seed);
  std::normal_distribution<float> normal;
  std::vector<float> partials(static_cast<std::size_t>(rows * (dims + 2)));
  for (std::int64_t row = 0; row < rows; ++row) {
    const PartialRow partial = partial_row(partials, row, dims);
    const bool seen = random() % 4 != 0;
    for (float& value : partial.output) value = seen ? normal(random) * 8 : 0;
    *partial.maximum = seen ? normal(random) * 10 : kNever;
    *partial.sum = seen ? 1 + std::abs(normal(random)) : 0;
  }
  return partials;
}

void expect_near(const std::vector<float>& found, const std::vector<float>& expected) {
  ASSERT_EQ(found.size(), expected.size());
  for (std::size_t i = 0; i < found.size(); ++i) {
    if (std::isinf(expected[i])) {
      ASSERT_EQ(found[i], expected[i]) << i;
    } else {
      ASSERT_NEAR(found[i], expected[i], 4e-6 * (1 + std::abs(expected[i]))) << i;
    }
  }
}

TEST(GpuMerge, IsWhatTheHostMakesOfIt) {
  std::uint64_t seed = 1;
  for (const int dims : {1, 64, 80, 128, 256})
    for (const std::int32_t parts : {1, 2, 7, 40})
      for (const std::int32_t rows : {1, 5, 64}) {
        SCOPED_TRACE("seed " + std::to_string(seed));
        GpuMemory memory;
        const auto partials = made_partials(std::int64_t{rows} * parts, dims, seed++);
        const Merge merge{memory.put(partials, 4), memory.room(partial_bytes(rows, dims), 4), parts,
                          rows, dims};
        const auto spaces = memory.spaces();
        EXPECT_EQ(OnGpu{}.run([&](const GpuLaunch& on) {
          return emulated_gpu::launch_merge(merge, spaces, on);
        }),
                  Status::ok);
        memory.expect_whole_red_zones();
        std::vector<float> expected(static_cast<std::size_t>(merge.to.bytes / 4));
        merge_partials(partials, parts, rows, dims, expected);
        ASSERT_NO_FATAL_FAILURE(expect_near(memory.read<float>(merge.to), expected));
      }
}

TEST(GpuFinish, IsWhatTheHostMakesOfIt) {
  std::uint64_t seed = 1;
  for (const int dims : {1, 64, 80, 256})
    for (const std::int32_t rows : {1, 5, 33})
      for (const NumberFormat number : {NumberFormat::fp16, NumberFormat::bf16})
        for (const bool wanted : {false, true}) {
          GpuMemory memory;
          const auto partials = made_partials(rows, dims, seed++);
          Finish finish{.partials = memory.put(partials, 4),
                        .outputs = memory.room(Bytes{2} * rows * dims, 2),
                        .rows = rows,
                        .head_dim = dims,
                        .output = number};
          if (wanted) finish.log_sum_exp = memory.room(Bytes{4} * rows, 4);
          const auto spaces = memory.spaces();
          EXPECT_EQ(OnGpu{}.run([&](const GpuLaunch& on) {
            return emulated_gpu::launch_finish(finish, spaces, on);
          }),
                    Status::ok);
          memory.expect_whole_red_zones();
          std::vector<std::uint16_t> outputs(static_cast<std::size_t>(rows * dims));
          std::vector<float> sums(wanted ? static_cast<std::size_t>(rows) : 0);
          finish_partials(partials, rows, dims, number, outputs, sums);
          EXPECT_EQ(memory.read<std::uint16_t>(finish.outputs), outputs);
          if (wanted) {
            ASSERT_NO_FATAL_FAILURE(expect_near(memory.read<float>(finish.log_sum_exp), sums));
          }
        }
}

// Scores of a list that probes attend to, with maxima and sums of the reference.
void expect_scores(const MadeList& list, const MadeQueries& probes, std::uint64_t seed) {
  GpuMemory memory;
  auto op = make_over_pages<Score>(memory, list, probes, seed);
  const std::vector lists{reference::decode_list(list.list())};
  const auto attention = reference::attention(probes.queries(), lists, probes.head_dim);
  std::vector<float> partials(static_cast<std::size_t>(op.partials.bytes / 4), NAN);
  for (std::int64_t row = 0; row < probes.rows(); ++row) {
    const double log_sum = attention.log_sum_exp[static_cast<std::size_t>(row)];
    const PartialRow partial = partial_row(partials, row, probes.head_dim);
    *partial.maximum = static_cast<float>(log_sum);
    *partial.sum =
        std::isinf(log_sum) ? 0 : static_cast<float>(std::exp(log_sum - double{*partial.maximum}));
  }
  std::memcpy(memory.at(op.partials), partials.data(), partials.size() * 4);
  op.scores = memory.room(op.tokens * 4, 4);
  op.scratch = memory.room(score_scratch_bytes(op.shape), 4);
  const auto spaces = memory.spaces();
  OnGpu gpu;
  gpu.emulation.seed = seed;
  ASSERT_EQ(
      gpu.run([&](const GpuLaunch& on) { return emulated_gpu::launch_score(op, spaces, on); }),
      Status::ok);
  memory.expect_whole_red_zones();
  const auto found = memory.read<float>(op.scores);
  for (Tokens token = 0; token < list.tokens; ++token) {
    double mass = 0, allowed = 0;
    int rows = 0;
    for (Tokens probe = 0; probe < probes.tokens; ++probe)
      for (int head = 0; head < probes.heads; ++head) {
        if (!reference::sees(probes.queries(), probe, lists[0], token)) continue;
        ++rows;
        const auto row = static_cast<std::size_t>(probe * probes.heads + head);
        const double probability =
            attention.probabilities[row * found.size() + static_cast<std::size_t>(token)];
        const auto terms =
            reference::logit(reference::query_row(probes.queries(), probe, head, probes.head_dim),
                             lists[0], head / (probes.heads / list.shape.kv_heads), token);
        mass += probability;
        allowed += probability * 2e-6 * (1 + terms.magnitude);
      }
    const double expected = rows > 0 ? mass / rows : 0;
    const double summed = static_cast<double>(rows) * 0x1p-24 * expected;
    ASSERT_NEAR(found[static_cast<std::size_t>(token)], expected,
                allowed / std::max(rows, 1) + summed + 1e-37)
        << token;
    if (rows == 0) {
      ASSERT_EQ(found[static_cast<std::size_t>(token)], 0.0f) << token;
    }
  }
}

TEST(GpuScore, EveryFormatAndShape) {
  std::uint64_t seed = 1;
  for (PageShape shape : test_shapes()) {
    shape.kv_heads = std::min(shape.kv_heads, 2);
    SCOPED_TRACE(describe(shape) + ", seed " + std::to_string(seed));
    const MadeList list = make_list(shape, shape.tokens + 7, seed);
    const auto group = static_cast<int>(1 + seed % 4);
    ASSERT_NO_FATAL_FAILURE(
        expect_scores(list,
                      make_queries(2, shape.kv_heads * group, shape.head_dim, 2, seed,
                                   seed % 2 == 0 ? NumberFormat::bf16 : NumberFormat::fp16),
                      seed));
    ++seed;
  }
}

TEST(GpuScore, PositionsWindowsAndHiddenTokens) {
  std::mt19937_64 random(5);
  const auto below = [&](int n) {
    return static_cast<std::int32_t>(random() % static_cast<std::uint64_t>(n));
  };
  const std::vector<ElementFormat> formats = test_formats();
  for (std::uint64_t seed = 1; seed <= 30; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    const ElementFormat& format =
        formats[static_cast<std::size_t>(below(static_cast<int>(formats.size())))];
    MadeList list = make_list({16 * (1 + below(3)), 2, 64, both(format)}, 1 + below(100), seed);
    for (Tokens token = 0; token < list.tokens; ++token) list.positions.push_back(below(250));
    for (Tokens word = 0; below(2) == 0 && word < divide_up(list.tokens, 64); ++word)
      list.hidden.push_back(random() & random());
    list.hidden.resize(list.hidden.empty() ? 0
                                           : static_cast<std::size_t>(divide_up(list.tokens, 64)));
    MadeQueries probes = make_queries(1 + below(6), 4, 64, 2, seed);
    for (Tokens probe = 0; probe < probes.tokens; ++probe)
      probes.positions.push_back(below(300) - 20);  // some see nothing
    probes.window = below(2) * below(120);
    ASSERT_NO_FATAL_FAILURE(expect_scores(list, probes, seed));
  }
}

TEST(GpuScore, APageOutOfBoundsIsRejected) {
  const MadeList list = make_list({32, 1, 64, both(per_channel(int4_token_head()))}, 100, 1);
  GpuMemory memory;
  auto op = make_over_pages<Score>(memory, list, make_queries(1, 4, 64, 1, 2));
  op.scores = memory.room(op.tokens * 4, 4);
  op.scratch = memory.room(score_scratch_bytes(op.shape), 4);
  const std::int64_t bad = op.pages.bytes;
  std::memcpy(memory.at(op.page_table) + 16, &bad, 8);
  const auto spaces = memory.spaces();
  EXPECT_EQ(
      OnGpu{}.run([&](const GpuLaunch& on) { return emulated_gpu::launch_score(op, spaces, on); }),
      Status::rejected);
  memory.expect_whole_red_zones();
}

}  // namespace
}  // namespace modalkv
