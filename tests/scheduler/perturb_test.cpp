#include "scheduler/perturb.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>
#include <vector>

#include "tests/scheduler/sample_machine.hpp"

namespace modalkv {
namespace {

std::vector<double> rates_and_latencies(const HardwareProfile& machine) {
  const GpuProfile& gpu = machine.gpu;
  return {gpu.memory_bytes_per_s,
          gpu.flops_16bit,
          gpu.attention_launch_ns,
          gpu.small_ops_ns_per_layer,
          gpu.small_ops_ns_per_token,
          gpu.step_host_ns,
          gpu.handover_ns,
          machine.link.h2d_bytes_per_s,
          machine.link.descriptor_ns,
          machine.host.numa_nodes.value[0].dram_bytes_per_s,
          machine.disk.read_bytes_per_s,
          machine.disk.write_bytes_per_s,
          machine.disk.latency_ns};
}

std::vector<double> factors(double fraction, std::uint64_t seed) {
  const std::vector<double> before = rates_and_latencies(sample_hardware());
  std::vector<double> after = rates_and_latencies(perturbed(sample_hardware(), fraction, seed));
  for (std::size_t i = 0; i < before.size(); ++i) after[i] /= before[i];
  return after;
}

TEST(Perturb, EveryRateAndLatencyGetsItsOwnFactorWithinTheFraction) {
  double least = 2, most = 0;
  for (std::uint64_t seed = 0; seed < 200; ++seed) {
    const std::vector<double> drawn = factors(0.2, seed);
    EXPECT_EQ(std::set<double>(drawn.begin(), drawn.end()).size(), drawn.size()) << seed;
    for (const double factor : drawn) {
      ASSERT_GE(factor, 0.8);
      ASSERT_LE(factor, 1.2);
      ASSERT_NE(factor, 1);
      least = std::min(least, factor);
      most = std::max(most, factor);
    }
  }
  EXPECT_LT(least, 0.805) << "the whole range is drawn from";
  EXPECT_GT(most, 1.195);
}

TEST(Perturb, TheSeedDecides) {
  EXPECT_EQ(factors(0.2, 7), factors(0.2, 7));
  EXPECT_NE(factors(0.2, 7), factors(0.2, 8));
}

TEST(Perturb, NoFractionNoChange) {
  for (const double factor : factors(0, 3)) EXPECT_DOUBLE_EQ(factor, 1);
}

// A link that is slower is slower for every piece, and both ways; so is memory on every node.
TEST(Perturb, WhatBelongsTogetherMovesTogether) {
  const HardwareProfile before = sample_hardware(), after = perturbed(before, 0.3, 5);
  const double link = after.link.h2d_bytes_per_s / before.link.h2d_bytes_per_s;
  EXPECT_DOUBLE_EQ(after.link.d2h_bytes_per_s / before.link.d2h_bytes_per_s, link);
  for (std::size_t i = 0; i < before.link.piece_table.value.size(); ++i) {
    const LinkPoint &was = before.link.piece_table.value[i], &is = after.link.piece_table.value[i];
    EXPECT_DOUBLE_EQ(is.bytes_per_s / was.bytes_per_s, link);
    EXPECT_EQ(is.descriptor_bytes, was.descriptor_bytes);
  }
  const auto &were = before.host.numa_nodes.value, &are = after.host.numa_nodes.value;
  EXPECT_DOUBLE_EQ(are[0].dram_bytes_per_s / were[0].dram_bytes_per_s,
                   are[1].dram_bytes_per_s / were[1].dram_bytes_per_s);
}

TEST(Perturb, SizesStay) {
  const HardwareProfile before = sample_hardware(), after = perturbed(before, 0.5, 11);
  EXPECT_EQ(after.gpu.memory_bytes.value, before.gpu.memory_bytes.value);
  EXPECT_EQ(after.gpu.reserved_bytes.value, before.gpu.reserved_bytes.value);
  EXPECT_EQ(after.host.numa_nodes.value[1].memory_bytes,
            before.host.numa_nodes.value[1].memory_bytes);
  EXPECT_EQ(after.host.numa_nodes.value[1].cores, before.host.numa_nodes.value[1].cores);
  EXPECT_EQ(after.disk.capacity_bytes.value, before.disk.capacity_bytes.value);
}

// In the order of rates_and_latencies: GPU rates and latencies, link, host, disk.
TEST(Scaled, RatesAreMultipliedLatenciesDividedAndTheRestStays) {
  const HardwareProfile before = sample_hardware(), after = scaled(before, {2, 0.5, 4});
  const std::vector<double> expected{2, 2, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 2, 4, 1, 1, 1};
  const std::vector<double> from = rates_and_latencies(before), to = rates_and_latencies(after);
  ASSERT_EQ(to.size(), expected.size());
  for (std::size_t i = 0; i < to.size(); ++i) EXPECT_DOUBLE_EQ(to[i], from[i] * expected[i]) << i;
  EXPECT_DOUBLE_EQ(after.link.piece_table.value[0].bytes_per_s,
                   before.link.piece_table.value[0].bytes_per_s * 0.5);
  EXPECT_EQ(after.gpu.memory_bytes.value, before.gpu.memory_bytes.value);
  EXPECT_EQ(after.gpu.memory_bytes_per_s.evidence, Evidence::fitted);
  EXPECT_EQ(scaled(before, {}).gpu.memory_bytes_per_s.evidence,
            before.gpu.memory_bytes_per_s.evidence);
}

}  // namespace
}  // namespace modalkv
