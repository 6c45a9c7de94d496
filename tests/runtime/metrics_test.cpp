#include "runtime/metrics.hpp"

#include <gtest/gtest.h>

#include <bit>

#include "runtime/prometheus.hpp"
#include "tests/offload/devices.hpp"
#include "tests/runtime/kv_history.hpp"
#include "tests/runtime/prometheus_reader.hpp"

namespace modalkv {
namespace {

// Counters with a value of their own each, whatever fields there are.
using CounterValues = std::array<std::int64_t, sizeof(RuntimeCounters) / sizeof(std::int64_t)>;

CounterValues telling_values() {
  CounterValues values;
  for (std::size_t i = 0; i < values.size(); ++i)
    values[i] = 1'000'003 + 17 * static_cast<std::int64_t>(i);
  return values;
}

TEST(Metrics, EveryCounterOfTheRuntimeHasItsLine) {
  RuntimeMetrics metrics;
  metrics.counters = std::bit_cast<RuntimeCounters>(telling_values());
  const PrometheusPage page = PrometheusReader::read(prometheus_text(metrics));
  for (const std::int64_t value : telling_values()) {
    int lines = 0;
    for (const auto& [key, sample] : page.samples)
      if (sample == static_cast<double>(value)) {
        ++lines;
        EXPECT_TRUE(key.first.ends_with("_total")) << key.first;
      }
    EXPECT_EQ(lines, 1) << "a counter is missing in runtime/metrics.cpp, or is there twice";
  }
}

RuntimeMetrics full_metrics() {
  RuntimeMetrics metrics;
  metrics.usage.pages = {
      {Tier::device, 0, Modality::text, both(bf16()), 3, 300},
      {Tier::host, 0, Modality::visual, both(int4_token_head()), 5, 50},
      {Tier::host, 1, Modality::visual, {int4_token_head(), int8_token_head()}, 7, 70},
      {Tier::disk, 0, Modality::visual, both(int4_token_head()), 11, 110}};
  metrics.usage.pools = {{Tier::device, 0, 1000, 320, 20}, {Tier::host, 1, 2000, 70, 0, 30}};
  metrics.measured = true;
  metrics.queues = {{QueueKind::h2d, 0, {1, 2, 3, 1'500'000'000}},
                    {QueueKind::host, 1, {4, 5, 6, 7}}};
  metrics.stalls = {250'000'000, 3};
  metrics.steps = {2, 30 * kMillisecond, 20 * kMillisecond, 16 * kMillisecond, 9 * kMillisecond};
  metrics.plans = {3, 2, 1};
  metrics.disk.emplace();
  metrics.disk->stored_jobs = 1, metrics.disk->loaded_jobs = 2, metrics.disk->failed_jobs = 3;
  metrics.disk->no_space_jobs = 4, metrics.disk->cancelled_jobs = 5;
  metrics.degraded = {{"pinned \"maybe\"\\\n", true}, {"other", false}};
  metrics.uptime_ns = 90 * kSecond + 1;
  return metrics;
}

TEST(Metrics, AreInBaseUnitsWithTheirLabels) {
  const PrometheusPage page =
      PrometheusReader::read(prometheus_text(full_metrics(), 1'250'000'000));
  EXPECT_EQ(page.value(
                "modalkv_kv_bytes",
                {{"tier", "host"}, {"node", "1"}, {"modality", "visual"}, {"format", "int4/int8"}}),
            70);
  EXPECT_EQ(page.sum("modalkv_kv_pages", {{"modality", "visual"}}), 23);
  EXPECT_EQ(page.sum("modalkv_kv_bytes", {{"format", "int4"}}), 160);
  EXPECT_EQ(page.value("modalkv_pool_retired_bytes", {{"tier", "device"}, {"node", "0"}}), 20);
  EXPECT_EQ(page.value("modalkv_pool_idle_bytes", {{"tier", "host"}, {"node", "1"}}), 30);
  EXPECT_EQ(page.value("modalkv_queue_busy_seconds_total", {{"queue", "h2d"}, {"node", "0"}}), 1.5);
  EXPECT_EQ(page.value("modalkv_queue_bytes_total", {{"queue", "host"}, {"node", "1"}}), 6);
  EXPECT_EQ(page.value("modalkv_compute_stall_seconds_total", {{"waits_for", "link"}}), 0.25);
  EXPECT_EQ(page.value("modalkv_compute_stall_seconds_total", {{"waits_for", "host"}}), 3e-9);
  EXPECT_EQ(page.value("modalkv_decode_step_actual_seconds_total"), 0.03);
  EXPECT_EQ(page.value("modalkv_decode_step_predicted_seconds"), 0.009);
  EXPECT_EQ(page.value("modalkv_plans_total", {{"cause", "drift"}}), 2);
  for (const auto& [outcome, jobs] :
       {std::pair{"stored", 1}, {"loaded", 2}, {"failed", 3}, {"no_space", 4}, {"cancelled", 5}})
    EXPECT_EQ(page.value("modalkv_disk_jobs_total", {{"outcome", outcome}}), jobs);
  EXPECT_EQ(page.value("modalkv_degraded", {{"mode", "pinned \"maybe\"\\\n"}}), 1);
  EXPECT_EQ(page.value("modalkv_degraded", {{"mode", "other"}}), 0);
  EXPECT_EQ(page.value("modalkv_uptime_seconds"), 90.000000001);
  EXPECT_EQ(page.value("modalkv_snapshot_age_seconds"), 1.25);
}

TEST(Metrics, NamesKeepTheCustomsOfPrometheus) {
  const PrometheusPage page = PrometheusReader::read(prometheus_text(full_metrics()));
  EXPECT_GT(page.types.size(), 40u);
  for (const auto& [name, type] : page.types) {
    EXPECT_TRUE(name.starts_with("modalkv_")) << name;
    EXPECT_EQ(name.ends_with("_total"), type == "counter") << name;
    for (const char* unit : {"_ns", "_ms", "milliseconds", "mib", "MiB"})
      EXPECT_EQ(name.find(unit), std::string::npos) << name;
  }
}

TEST(Metrics, WhatWasNotMeasuredIsNotToldAsZero) {
  const PrometheusPage page = PrometheusReader::read(prometheus_text({}));
  EXPECT_FALSE(page.types.contains("modalkv_compute_stall_seconds_total"));
  EXPECT_FALSE(page.types.contains("modalkv_queue_bytes_total"));
  EXPECT_TRUE(page.types.contains("modalkv_attends_total"));
}

TEST(Metrics, NegativeTimesKeepTheirSign) {
  PrometheusText text;
  text.gauge("offset_seconds", "Below zero.");
  text.seconds(-1'500'000'000);
  EXPECT_EQ(PrometheusReader::read(text.str()).value("modalkv_offset_seconds"), -1.5);
}

// Histories with everything in them: whenever one looks, the pages in a pool are what it has given
// out and not got back, and at the end nothing is left.
TEST(Metrics, PagesAddUpToWhatThePoolsHaveGivenOut) {
  std::set<std::pair<Tier, std::string>> seen;
  for (std::uint64_t seed = 300; seed < 310 && !HasFailure(); ++seed) {
    SCOPED_TRACE(seed);
    HistoryMemory memory;
    JitteredSim world;
    KvUsage last;
    const auto look = [&](const KvCache& cache) {
      last = cache.usage();
      std::map<Tier, Bytes> bytes;
      for (const PageUsage& kind : last.pages) {
        ASSERT_GT(kind.pages, 0);
        ASSERT_EQ(kind.bytes % kind.pages, 0) << "pages of a kind are of a size";
        bytes[kind.tier] += kind.bytes;
        seen.insert({kind.tier, std::string(name(kind.format.key.number))});
      }
      for (const PoolUsage& pool : last.pools) {
        EXPECT_EQ(bytes[pool.tier], pool.used_bytes - pool.retired_bytes);
        EXPECT_LE(pool.used_bytes, pool.capacity_bytes);
      }
    };
    const HistoryResult result =
        History(world.device, memory, {.seed = seed}).run(ActionSource(seed).draw(60), look);
    EXPECT_EQ(result.problem, "");
    EXPECT_TRUE(last.pages.empty());
    EXPECT_EQ(last.running_sequences + last.paused_sequences, 0);
  }
  for (const Tier tier : {Tier::device, Tier::host})
    for (const char* format : {"fp16", "int4", "int8"})
      EXPECT_TRUE(seen.contains({tier, format})) << name(tier) << ' ' << format;
}

}  // namespace
}  // namespace modalkv
