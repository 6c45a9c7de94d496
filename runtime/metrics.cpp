#include "runtime/metrics.hpp"

#include "runtime/prometheus.hpp"

namespace modalkv {
namespace {

// A counter of RuntimeCounters is a line here.
struct CounterLine {
  std::string_view name, help;
  std::int64_t RuntimeCounters::*value;
};

constexpr CounterLine kCounterLines[] = {
    {"appended_tokens_total", "Tokens appended, in all layers.", &RuntimeCounters::appended_tokens},
    {"attends_total", "Attentions of a batch at a layer.", &RuntimeCounters::attends},
    {"busy_total", "Calls that found no room now.", &RuntimeCounters::busy},
    {"no_space_total", "Calls that found no memory and nothing that could make room.",
     &RuntimeCounters::no_space},
    {"streamed_bytes_total", "Bytes copied to the device for attention.",
     &RuntimeCounters::streamed_bytes},
    {"prefetched_bytes_total", "Bytes streamed ahead of their layer.",
     &RuntimeCounters::prefetched_bytes},
    {"wasted_prefetch_bytes_total", "Bytes streamed ahead and not used.",
     &RuntimeCounters::wasted_prefetch_bytes},
    {"left_bytes_total", "Bytes that left the device to stay on the host.",
     &RuntimeCounters::left_bytes},
    {"arrived_bytes_total", "Bytes that came to the device to stay.",
     &RuntimeCounters::arrived_bytes},
    {"compressed_pages_total", "Pages compressed.", &RuntimeCounters::compressed_pages},
    {"verified_pages_total", "Pages that were verified before attention.",
     &RuntimeCounters::verified_pages},
    {"corrupt_pages_total", "Pages that were found spoiled.", &RuntimeCounters::corrupt_pages},
    {"lost_tokens_total", "Tokens whose KV was lost.", &RuntimeCounters::lost_tokens},
    {"failed_groups_total", "Groups of operations that failed.", &RuntimeCounters::failed_groups},
    {"timeouts_total", "Groups of operations whose end was never told.",
     &RuntimeCounters::timeouts},
    {"scored_tokens_total", "Image tokens scored by text behind them, in all layers.",
     &RuntimeCounters::scored_tokens},
    {"promoted_tokens_total", "Image tokens kept in high precision, in all layers.",
     &RuntimeCounters::promoted_tokens},
    {"unscored_chunks_total", "Chunks in a layer whose scores found no room.",
     &RuntimeCounters::unscored_chunks},
    {"unselected_for_memory_total", "Choices of image tokens given up for want of memory.",
     &RuntimeCounters::unselected_for_memory},
    {"unselected_for_probes_total", "Choices given up as no text has scored the image tokens.",
     &RuntimeCounters::unselected_for_probes},
    {"unselected_for_faults_total", "Choices given up as a copy failed.",
     &RuntimeCounters::unselected_for_faults},
    {"reuse_hits_total", "Prompts with known content of which KV was reused.",
     &RuntimeCounters::reuse_hits},
    {"reuse_misses_total", "Prompts with known content of which none was.",
     &RuntimeCounters::reuse_misses},
    {"reuse_known_tokens_total", "Tokens of known content in prompts.",
     &RuntimeCounters::known_tokens},
    {"reuse_hit_tokens_total", "Of them, those that were reused.", &RuntimeCounters::reused_tokens},
    {"kept_segments_total", "Segments whose KV was kept for prompts to come.",
     &RuntimeCounters::kept_segments},
    {"unkept_segments_total", "Segments that were not kept: no room for their last page.",
     &RuntimeCounters::unkept_segments},
    {"evicted_segments_total", "Kept segments that left for want of memory.",
     &RuntimeCounters::evicted_segments},
    {"spoiled_segments_total", "Kept segments that left as a page of theirs was corrupt.",
     &RuntimeCounters::spoiled_segments},
    {"stored_segments_total", "Kept segments that went to the disk.",
     &RuntimeCounters::stored_segments},
    {"unstored_segments_total", "Kept segments that were to go to the disk and did not.",
     &RuntimeCounters::unstored_segments},
    {"loaded_segments_total", "Segments that came back from the disk.",
     &RuntimeCounters::loaded_segments},
    {"unloaded_segments_total", "Segments that did not, for a failure or for want of room.",
     &RuntimeCounters::unloaded_segments},
};

std::string format_name(const KvFormat& format) {
  std::string text(name(format.key.number));
  if (format.value.number != format.key.number)
    text += "/" + std::string(name(format.value.number));
  return text;
}

void add_usage(PrometheusText& text, const KvUsage& usage) {
  const auto pages = [&](auto value) {
    for (const PageUsage& kind : usage.pages)
      text.sample(kind.*value, {{"tier", name(kind.tier)},
                                {"node", std::to_string(kind.node)},
                                {"modality", name(kind.modality)},
                                {"format", format_name(kind.format)}});
  };
  text.gauge("kv_bytes",
             "KV by tier, modality and format; text includes image tokens kept in high precision.");
  pages(&PageUsage::bytes);
  text.gauge("kv_pages", "Pages by tier, modality and format.");
  pages(&PageUsage::pages);
  const auto pools = [&](auto value) {
    for (const PoolUsage& pool : usage.pools)
      text.sample(pool.*value, {{"tier", name(pool.tier)}, {"node", std::to_string(pool.node)}});
  };
  text.gauge("pool_capacity_bytes", "Room for pages.");
  pools(&PoolUsage::capacity_bytes);
  text.gauge("pool_used_bytes", "Of it, taken: by pages, or retired.");
  pools(&PoolUsage::used_bytes);
  text.gauge("pool_retired_bytes", "Of it, given up and free once nothing in flight touches it.");
  pools(&PoolUsage::retired_bytes);
  text.gauge("pool_idle_bytes", "Of it, known content that no sequence uses now.");
  pools(&PoolUsage::idle_bytes);
  text.gauge("sequences", "Sequences by state.");
  text.sample(usage.running_sequences, {{"state", "running"}});
  text.sample(usage.paused_sequences, {{"state", "paused"}});
  text.gauge("blocks", "Blocks of pages.");
  text.sample(usage.blocks);
  text.gauge("kept_segments", "Segments of known content that are kept.");
  text.sample(usage.kept_segments);
  text.gauge("kept_bytes", "What they take when they are compressed.");
  text.sample(usage.kept_bytes);
  text.gauge("groups_in_flight", "Groups of operations in flight.");
  text.sample(usage.groups_in_flight);
  text.gauge("misplaced_parts", "Parts of blocks that are not where the plan wants them.");
  text.sample(usage.wishes);
  text.gauge("reserved_bytes", "Device memory reserved for tokens to come.");
  text.sample(usage.reserved_bytes);
}

void add_queues(PrometheusText& text, const std::vector<QueueMetrics>& queues) {
  const auto each = [&](auto add) {
    for (const QueueMetrics& queue : queues)
      add(queue.use, PrometheusText::Labels{{"queue", name(queue.kind)},
                                            {"node", std::to_string(queue.node)}});
  };
  text.counter("queue_groups_total", "Groups of operations that have ended, by queue.");
  each([&](const QueueUse& use, auto labels) { text.sample(use.groups, labels); });
  text.counter("queue_operations_total", "Operations of these groups.");
  each([&](const QueueUse& use, auto labels) { text.sample(use.ops, labels); });
  text.counter("queue_bytes_total", "Bytes that they moved: of h2d and d2h, over the link.");
  each([&](const QueueUse& use, auto labels) { text.sample(use.bytes, labels); });
  text.counter(
      "queue_busy_seconds_total",
      "Time between the estimated begin and the end of groups: its rate is the busy share.");
  each([&](const QueueUse& use, auto labels) { text.seconds(use.busy_ns, labels); });
}

void add_steps(PrometheusText& text, const RuntimeMetrics& metrics) {
  text.counter("compute_stall_seconds_total",
               "Time in which the compute queue had nothing else to do and waited, by for what.");
  text.seconds(metrics.stalls.link_ns, {{"waits_for", "link"}});
  text.seconds(metrics.stalls.host_ns, {{"waits_for", "host"}});
  text.counter("decode_steps_total", "Decode steps whose time was taken.");
  text.sample(metrics.steps.steps);
  text.counter("decode_step_actual_seconds_total",
               "From attending at the first layer to its end at the last.");
  text.seconds(metrics.steps.actual_ns);
  text.gauge("decode_step_actual_seconds", "The latest step.");
  text.seconds(metrics.steps.last_actual_ns);
  if (metrics.plans.asked == 0) return;
  text.counter("decode_step_predicted_seconds_total",
               "What the plan predicted for them, since there is one.");
  text.seconds(metrics.steps.predicted_ns);
  text.gauge("decode_step_predicted_seconds", "What the plan predicted for it.");
  text.seconds(metrics.steps.last_predicted_ns);
}

void add_plans(PrometheusText& text, const RuntimeMetrics& metrics) {
  text.counter("plans_total", "Plans made, by cause.");
  text.sample(metrics.plans.asked, {{"cause", "asked"}});
  text.sample(metrics.plans.drifted, {{"cause", "drift"}});
  text.counter("plans_failed_total", "Plans, of these, for which no placement fits.");
  text.sample(metrics.plans.failed);
  text.gauge("drifting", "Whether steps take other than predicted.");
  text.sample(metrics.drifting ? 1 : 0);
}

void add_disk(PrometheusText& text, const DiskTierCounters& disk) {
  text.counter("disk_jobs_total", "Segments that went to the disk or came from it, by outcome.");
  const auto jobs = [&](std::uint64_t count, std::string_view outcome) {
    text.sample(static_cast<std::int64_t>(count), {{"outcome", outcome}});
  };
  jobs(disk.stored_jobs, "stored");
  jobs(disk.loaded_jobs, "loaded");
  jobs(disk.failed_jobs, "failed");
  jobs(disk.no_space_jobs, "no_space");
  jobs(disk.cancelled_jobs, "cancelled");
}

}  // namespace

std::string prometheus_text(const RuntimeMetrics& metrics, Nanos age_ns) {
  PrometheusText text;
  add_usage(text, metrics.usage);
  for (const auto& [name, help, value] : kCounterLines) {
    text.counter(name, help);
    text.sample(metrics.counters.*value);
  }
  if (metrics.measured) {
    add_queues(text, metrics.queues);
    add_steps(text, metrics);
  }
  add_plans(text, metrics);
  if (metrics.disk) add_disk(text, *metrics.disk);
  if (!metrics.degraded.empty()) {
    text.gauge("degraded", "1 where something works, but not as well as it should.");
    for (const auto& [mode, degraded] : metrics.degraded)
      text.sample(degraded ? 1 : 0, {{"mode", mode}});
  }
  text.gauge("uptime_seconds", "Since the runtime was opened, at the snapshot.");
  text.seconds(metrics.uptime_ns);
  text.gauge("snapshot_age_seconds",
             "How old these figures are: an engine that calls nothing refreshes none.");
  text.seconds(age_ns);
  return text.str();
}

}  // namespace modalkv
