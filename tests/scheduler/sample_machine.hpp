// A model and a machine in round numbers, for tests that compute by hand.
#pragma once

#include "modalkv/hardware.hpp"
#include "modalkv/model.hpp"

namespace modalkv {

/// 4 layers, 4 KV heads of 128: 2 KiB of 16-bit KV a token and layer.
inline ModelGeometry sample_model() {
  return {.name = "sample",
          .layers = 4,
          .q_heads = 28,
          .kv_heads = 4,
          .head_dim = 128,
          .hidden = 3584,
          .ffn = 18944,
          .vocabulary = 152064,
          .context_tokens = 32768};
}

/// 80 GB at 3 TB/s, a link of 50 GB/s, two nodes of 64 GB at 100 GB/s each.
inline HardwareProfile sample_hardware() {
  HardwareProfile machine;
  machine.name = "sample";
  machine.gpu = {.memory_bytes = {80'000'000'000},
                 .memory_bytes_per_s = {3e12},
                 .flops_16bit = {1e15},
                 .efficiency = {.gemm_memory = {0.8},
                                .gemm_flops = {0.7},
                                .attention_memory = {0.75},
                                .prefill_flops = {0.5}},
                 .attention_launch_ns = {4000},
                 .small_ops_ns_per_layer = {10000},
                 .small_ops_ns_per_token = {100},
                 .step_host_ns = {500000},
                 .handover_ns = {3000},
                 .reserved_bytes = {2'000'000'000}};
  machine.link = {.h2d_bytes_per_s = {50e9},
                  .d2h_bytes_per_s = {40e9},
                  .piece_table = {{{4096, 5e9}, {16384, 10e9}, {65536, 40e9}}},
                  .descriptor_ns = {500},
                  .duplex_share = {0.8}};
  machine.host = {.numa_nodes = {{{64'000'000'000, 100e9, 32}, {64'000'000'000, 100e9, 32}}},
                  .pinnable_share = {0.5},
                  .attention_memory = {0.6}};
  machine.disk = {.capacity_bytes = {1'000'000'000'000},
                  .read_bytes_per_s = {7e9},
                  .write_bytes_per_s = {5e9},
                  .latency_ns = {80000}};
  return machine;
}

}  // namespace modalkv
