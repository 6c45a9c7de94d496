#include "scheduler/cost_model.hpp"

#include <gtest/gtest.h>

#include <cmath>

#include "tests/scheduler/sample_machine.hpp"

namespace modalkv {
namespace {

// Of the sample machine: 3 TB/s and 1 PFLOP/s by their efficiencies.
constexpr double kGemmBytesPerNs = 3000 * 0.8;
constexpr double kGemmFlopsPerNs = 1e6 * 0.7;
constexpr double kAttentionBytesPerNs = 3000 * 0.75;
constexpr double kPrefillFlopsPerNs = 1e6 * 0.5;

double roofline_ns(double bytes, double flops) {
  return std::hypot(bytes / kGemmBytesPerNs, flops / kGemmFlopsPerNs);
}

// 16-bit weights are read once; 16-bit rows go in and out.
double gemm_ns(double inputs, double outputs, double rows) {
  return roofline_ns(2 * (inputs * outputs + rows * (inputs + outputs)),
                     2 * inputs * outputs * rows);
}

double small_ns(double tokens) {
  return 10'000 + 100 * tokens;
}

TEST(CostModel, ALayerIsItsGemmsAttentionAndSmallOperations) {
  const CostModel cost(sample_model(), sample_hardware());
  for (const Tokens prefill : {0, 1'000}) {
    const double tokens = 8 + static_cast<double>(prefill);
    const double pairs = static_cast<double>(prefill) * (3'000 + 500);  // behind 3,000 tokens
    const ComputeTimes times = cost.compute({.decode_tokens = 8,
                                             .prefill_tokens = prefill,
                                             .prefill_pairs = pairs,
                                             .sampled_tokens = 9});
    // Queries of 28 heads and keys and values of 4, of 128 each.
    EXPECT_NEAR(static_cast<double>(times.before_attention_ns),
                gemm_ns(3584, 3584 + 2 * 512, tokens) + small_ns(tokens) / 2, 1);
    EXPECT_NEAR(static_cast<double>(times.fresh_attention_ns),
                4'000 + 4 * 28 * 128 * pairs / kPrefillFlopsPerNs, 1);
    EXPECT_NEAR(static_cast<double>(times.after_attention_ns),
                gemm_ns(3584, 3584, tokens) + gemm_ns(3584, 2 * 18944, tokens) +
                    gemm_ns(18944, 3584, tokens) + small_ns(tokens) / 2,
                1);
    EXPECT_NEAR(static_cast<double>(times.step_ns), 500'000 + gemm_ns(3584, 152064, 9), 1);
    EXPECT_EQ(times.vision_ns, 0);
  }
}

TEST(CostModel, NoSampledTokenNeedsNoHead) {
  const CostModel cost(sample_model(), sample_hardware());
  EXPECT_EQ(cost.compute({.prefill_tokens = 100}).step_ns, 500'000);
}

TEST(CostModel, ExpertsAreReadAsOftenAsTokensDrawThem) {
  ModelGeometry model = sample_model();
  model.ffn = 768;
  model.experts = 8;
  model.active_experts = 2;
  const CostModel cost(model, sample_hardware());
  // One token reads two experts; a second draws each of the other six with chance 1/4.
  for (const auto& [tokens, read] : {std::pair{1, 2.0}, {2, 3.5}, {1000, 8.0}}) {
    const double rows = 2.0 * tokens;
    const auto expert_gemm_ns = [&, experts = read](double inputs, double outputs) {
      return roofline_ns(2 * (experts * inputs * outputs + rows * (inputs + outputs)),
                         2 * inputs * outputs * rows);
    };
    EXPECT_NEAR(static_cast<double>(cost.compute({.decode_tokens = tokens}).after_attention_ns),
                gemm_ns(3584, 3584, tokens) + expert_gemm_ns(3584, 2 * 768) +
                    expert_gemm_ns(768, 3584) + small_ns(tokens) / 2,
                1)
        << tokens;
  }
}

TEST(CostModel, VisionCountsPatchesAndThePairsThatAttend) {
  ModelGeometry model = sample_model();
  model.vision = {.layers = 2, .hidden = 1000, .ffn = 4000, .patches_per_token = 4};
  const double parameters = 2 * (4 * 1e6 + 2 * 4e6);
  for (const int window : {0, 64}) {
    model.vision.attention_patches = window;
    const CostModel cost(model, sample_hardware());
    BatchShape batch;
    cost.add_images(batch, 1, 100);
    cost.add_images(batch, 2, 100);
    const double attended = window == 0 ? 400 : 64;
    EXPECT_DOUBLE_EQ(batch.vision_patches, 3 * 400);
    EXPECT_DOUBLE_EQ(batch.vision_pairs, 3 * 400 * attended);
    const double expected =
        roofline_ns(2 * parameters, 2 * parameters * 1200 + 4 * 2 * 1000 * 1200 * attended);
    const ComputeTimes times = cost.compute(batch);
    EXPECT_NEAR(static_cast<double>(times.vision_ns), expected, 1);
    EXPECT_NEAR(static_cast<double>(times.step_ns), 500'000 + expected, 1);
  }
}

TEST(CostModel, StoredKvIsReadAtTheRateOfItsReader) {
  HardwareProfile machine = sample_hardware();
  const CostModel cost(sample_model(), machine);
  EXPECT_EQ(cost.attend_ns(2'250'000), 1'000);
  EXPECT_NEAR(cost.attend_ns_per_byte(), 1 / kAttentionBytesPerNs, 1e-12);
  EXPECT_EQ(cost.encode_ns(2'250'000), 1'000);
  // 2 x 100 GB/s x 0.6, less the 50 GB/s that the link takes; a quarter at the least.
  EXPECT_EQ(cost.cpu_attend_ns(70'000), 1'000);
  machine.link.h2d_bytes_per_s.value = 100e9;
  EXPECT_EQ(CostModel(sample_model(), machine).cpu_attend_ns(30'000), 1'000);
  EXPECT_EQ(cost.handover_ns(), 3'000);
}

TEST(CostModel, CopiesRunAtTheRateOfTheirPieces) {
  const CostModel cost(sample_model(), sample_hardware());
  constexpr Bytes kGigabyte = 1'000'000'000;
  EXPECT_EQ(cost.h2d_ns(0, 65536), 0);
  EXPECT_EQ(cost.h2d_ns(kGigabyte, 1 << 20), 500 + 20'000'000) << "50 GB/s beyond the table";
  EXPECT_EQ(cost.h2d_ns(kGigabyte, 65537), 500 + 20'000'000);
  EXPECT_EQ(cost.h2d_ns(kGigabyte, 65536), 500 + 25'000'000) << "40 GB/s";
  EXPECT_EQ(cost.h2d_ns(kGigabyte, 16384), 500 + 100'000'000) << "10 GB/s";
  EXPECT_EQ(cost.h2d_ns(kGigabyte, 32768), 500 + 40'000'000) << "half way in the logarithm";
  EXPECT_EQ(cost.h2d_ns(kGigabyte, 8192), 500 + 133'333'333) << "7.5 GB/s";
  EXPECT_EQ(cost.d2h_ns(kGigabyte, 1 << 20), 500 + 25'000'000) << "40 GB/s";
  EXPECT_EQ(cost.d2h_ns(kGigabyte, 32768), 500 + 40'000'000);
  EXPECT_EQ(cost.d2h_ns(0, 65536), 0);
}

TEST(CostModel, DescriptorsLimitSmallPieces) {
  const CostModel cost(sample_model(), sample_hardware());
  // A million pieces of 1 KiB at half a microsecond each; below the table its first rate holds.
  EXPECT_EQ(cost.h2d_ns(1'024'000'000, 1024), 500 + 500'000'000);
  EXPECT_EQ(cost.d2h_ns(1'024'000'000, 1024), 500 + 500'000'000);
  EXPECT_EQ(cost.h2d_ns(1'000'000'000, 2560), 500 + 200'000'000) << "5 GB/s, by both";
}

// A compressed page in a small piece against its 16-bit page in a large one: compression alone can
// be slower.
TEST(CostModel, CompressionIntoSmallPiecesCanBeSlower) {
  HardwareProfile machine = sample_hardware();
  machine.link.piece_table = {{{4096, 4e9}, {8192, 5e9}, {24576, 6.7e9}, {28672, 40e9}}};
  const CostModel cost(sample_model(), machine);
  constexpr Bytes kPages = 10'000;
  EXPECT_GT(cost.h2d_ns(kPages * 8704, 8704), cost.h2d_ns(kPages * 32768, 32768));
  EXPECT_LT(3 * cost.h2d_ns(kPages * 8704, CostModel::piece_bytes(544)),
            cost.h2d_ns(kPages * 32768, CostModel::piece_bytes(2048)));
}

TEST(CostModel, ATableNeverBeatsThePeakAndMayBeMissing) {
  HardwareProfile machine = sample_hardware();
  machine.link.h2d_bytes_per_s.value = 20e9;
  EXPECT_EQ(CostModel(sample_model(), machine).h2d_ns(1'000'000'000, 65536), 500 + 50'000'000);
  machine.link.piece_table.value.clear();
  EXPECT_EQ(CostModel(sample_model(), machine).h2d_ns(1'000'000'000, 16384), 500 + 50'000'000);
}

TEST(CostModel, PiecesAreWholePagesOfAtLeast64KiB) {
  EXPECT_EQ(CostModel::piece_bytes(2048), 65536);
  EXPECT_EQ(CostModel::piece_bytes(544), 8 * 8704);
  EXPECT_EQ(CostModel::piece_bytes(16384), 262144) << "one page is more already";
  EXPECT_EQ(CostModel::piece_bytes(4097), 65552);
}

TEST(CostModel, OpposingTrafficSlowsWhatOverlaps) {
  const CostModel cost(sample_model(), sample_hardware());
  EXPECT_EQ(cost.with_opposing_traffic(1'000, 0), 1'000);
  EXPECT_EQ(cost.with_opposing_traffic(1'000, 400), 1'100) << "400 take 500";
  EXPECT_EQ(cost.with_opposing_traffic(1'000, 9'000), 1'250);
}

TEST(CostModel, MemoryIsWhatWeightsAndReservesLeave) {
  ModelGeometry model = sample_model();
  const Bytes layer = 3584LL * (3584 + 2 * 512) + 3584LL * 3584 + 3LL * 3584 * 18944;
  const Bytes weights = 2 * (4 * layer + 2LL * 152064 * 3584);
  const CostModel cost(model, sample_hardware());
  EXPECT_EQ(cost.weight_bytes(), weights);
  EXPECT_EQ(cost.device_kv_budget_bytes(0.9), 72'000'000'000 - weights - 2'000'000'000);
  EXPECT_LT(cost.device_kv_budget_bytes(0.01), 0) << "weights do not fit";
  EXPECT_EQ(cost.host_kv_budget_bytes(), 64'000'000'000);

  model.tied_embeddings = true;
  model.vision = {.layers = 1, .hidden = 1000, .ffn = 4000, .patches_per_token = 4};
  model.image_rule = {.kind = ImageTokenRule::Kind::pixels, .unit_side_px = 28, .max_tokens = 500};
  const Bytes with_vision = weights - 2LL * 152064 * 3584 + 2 * (4'000'000 + 8'000'000);
  const Bytes rows = 500 * 4 * 2 * (5 * 1000 + 4000);  // of the largest image
  const CostModel seeing(model, sample_hardware());
  EXPECT_EQ(seeing.weight_bytes(), with_vision);
  EXPECT_EQ(seeing.device_kv_budget_bytes(0.9),
            72'000'000'000 - with_vision - 2'000'000'000 - rows);
}

}  // namespace
}  // namespace modalkv
