// A small model on a small machine, and random traces that press on it: a replay takes
// milliseconds.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <random>
#include <string>
#include <vector>

#include "modalkv/hardware.hpp"
#include "modalkv/model.hpp"
#include "runtime/replay.hpp"
#include "scheduler/policies.hpp"
#include "scheduler/request.hpp"

namespace modalkv::small_world {

/// 16-bit KV: 32 KiB a token in 8 layers. Weights: about 350 MB.
inline ModelGeometry model() {
  return {.name = "small",
          .layers = 8,
          .q_heads = 8,
          .kv_heads = 8,
          .head_dim = 128,
          .hidden = 1024,
          .ffn = 2816,
          .vocabulary = 32'000,
          .context_tokens = 8192,
          .image_rule = {.kind = ImageTokenRule::Kind::fixed, .tokens_per_unit = 576},
          .vision = {.layers = 4, .hidden = 256, .ffn = 1024, .attention_patches = 577}};
}

/// Grouped-query attention, more layers, no vision encoder.
inline ModelGeometry grouped_model() {
  ModelGeometry result = model();
  result.name = "grouped";
  result.layers = 16;
  result.kv_heads = 2;
  result.ffn = 1408;
  result.vision = {};
  return result;
}

/// `kv_bytes` of GPU memory are left for KV of `model` at a utilization of 0.9.
inline HardwareProfile machine(const ModelGeometry& model, Bytes kv_bytes) {
  HardwareProfile machine;
  machine.name = "bench";
  GpuProfile& gpu = machine.gpu;
  gpu.reserved_bytes.value = 64 * kMiB;
  const Bytes vision_bytes = 16 * kMiB;  // more than the encoder's workspace
  const Bytes used = weight_bytes(model) + gpu.reserved_bytes + vision_bytes + kv_bytes;
  gpu.memory_bytes.value = static_cast<Bytes>(static_cast<double>(used) / 0.9);
  gpu.memory_bytes_per_s.value = 2e11;
  gpu.flops_16bit.value = 2e13;
  gpu.efficiency.gemm_memory.value = 0.9;
  gpu.efficiency.gemm_flops.value = 0.9;
  gpu.efficiency.attention_memory.value = 0.8;
  gpu.efficiency.prefill_flops.value = 0.7;
  gpu.attention_launch_ns.value = 10'000;
  gpu.small_ops_ns_per_layer.value = 7'000;
  gpu.small_ops_ns_per_token.value = 90;
  gpu.step_host_ns.value = 500'000;
  gpu.handover_ns.value = 4'000;
  machine.link.h2d_bytes_per_s.value = 2.0e10;
  machine.link.d2h_bytes_per_s.value = 1.9e10;
  machine.link.piece_table.value = {{4 * kKiB, 2e9}, {28 * kKiB, 1.5e10}, {64 * kKiB, 1.9e10}};
  machine.link.descriptor_ns.value = 500;
  machine.link.duplex_share.value = 0.75;
  machine.host.numa_nodes.value = {{.memory_bytes = 4 * kGiB, .dram_bytes_per_s = 6e10}};
  machine.host.pinnable_share.value = 0.5;
  machine.host.attention_memory.value = 0.7;
  return machine;
}

inline HardwareProfile machine() {
  return machine(model(), 128 * kMiB);
}

class TraceBuilder {
 public:
  TraceBuilder& add(Nanos arrival_ns, std::vector<Segment> segments, Tokens output) {
    Request request{.arrival_ns = arrival_ns,
                    .output_tokens = output,
                    .first_segment = static_cast<std::uint32_t>(trace_.segments.size()),
                    .segment_count = static_cast<std::uint32_t>(segments.size())};
    for (const Segment& segment : segments) {
      request.prompt_tokens += segment.tokens;
      if (is_visual(segment.token_class)) {
        request.visual_tokens += segment.tokens;
        ++request.images;
      }
      trace_.segments.push_back(segment);
    }
    trace_.requests.push_back(request);
    return *this;
  }
  const Trace& trace() const { return trace_; }

 private:
  Trace trace_;
};

inline Segment text(Tokens tokens, std::uint64_t id = 0) {
  return {.token_class = TokenClass::text, .tokens = tokens, .content = {{id, 0, 0, 0}}};
}
inline Segment image(Tokens tokens, std::uint64_t id = 0) {
  return {.token_class = TokenClass::image, .tokens = tokens, .content = {{id, 0, 0, id}}};
}

/// Bursty arrivals, up to three images each, some shared; a few requests beyond any context.
struct TraceOptions {
  int requests = 40;
  Nanos mean_gap_ns = 60 * kMillisecond;
  Tokens most_text = 1200;
  Tokens most_output = 200;
  bool shared_images = true;
  bool monsters = true;
};

inline Trace random_trace(std::uint64_t seed, const TraceOptions& options = {}) {
  std::mt19937_64 bits(seed);
  const auto below = [&](std::int64_t end) {
    return static_cast<std::int64_t>(bits() % static_cast<std::uint64_t>(end));
  };
  TraceBuilder builder;
  Nanos now = 0;
  for (int r = 0; r < options.requests; ++r) {
    if (below(3) > 0) now += below(3 * options.mean_gap_ns);
    std::vector<Segment> segments;
    for (std::int64_t images = below(4); images > 0; --images) {
      const auto id = options.shared_images && below(2) == 0 ? 1 + below(6) : 0;
      segments.push_back(
          image(id > 0 ? 200 + 50 * id : 1 + below(700), static_cast<std::uint64_t>(id)));
    }
    const bool monster = options.monsters && below(15) == 0;
    segments.push_back(text(monster ? 3000 + below(6000) : 1 + below(options.most_text)));
    builder.add(now, segments, 1 + below(options.most_output));
  }
  return builder.trace();
}

inline ReplayResult run(const Trace& trace, const ReplayConfig& config) {
  Replay replay(trace, config);
  while (replay.advance(1000)) {
  }
  return replay.finish();
}

/// Every step is kept in the result's window.
inline ReplayConfig config(const ModelGeometry& model, const HardwareProfile& machine,
                           const PrecisionPolicy& policy) {
  return {.model = model,
          .hardware = machine,
          .policy = policy,
          .limits = {},
          .window_length_ns = 1'000'000 * kSecond};
}

inline PrecisionPolicy policy(const char* name) {
  return find_policy(name).value();
}

}  // namespace modalkv::small_world
