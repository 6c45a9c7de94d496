// A runtime that opens at once.
#pragma once

#include "modalkv/runtime.hpp"
#include "tests/runtime/test_device.hpp"

namespace modalkv {

/// Of 4 query and 2 KV heads of 64; images in INT4, streamed where the device has no room.
inline RuntimeConfig small_runtime_config(int layers) {
  RuntimeConfig config;
  config.layers = layers;
  config.query_heads = 4;
  config.kv_heads = 2;
  config.head_dim = 64;
  config.policy.selection = Selection::text_centric;
  config.policy.visual_low = both(int4_token_head());
  config.policy.places = {true, true, false};
  config.device_bytes = 8 * kMiB;
  config.host_bytes = 16 * kMiB;
  config.tables_bytes = kMiB;
  config.staging_slot_bytes = kMiB;
  config.partials_bytes = kMiB;
  config.attention_threads = 1;
  config.gpu = gpu_of_tests();
  return config;
}

}  // namespace modalkv
