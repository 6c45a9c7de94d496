/* An engine in C11: compiled as such, called by c_api_test.cpp. */
#include "tests/runtime/c_api_c11.h"

#include <string.h>

#include "modalkv/modalkv.h"

enum { LAYERS = 2, QUERY_HEADS = 4, KV_HEADS = 2, HEAD_DIM = 64, TOKENS = 40 };

static uint16_t rows[TOKENS * KV_HEADS * HEAD_DIM];
static uint16_t queries[QUERY_HEADS * HEAD_DIM], outputs[QUERY_HEADS * HEAD_DIM];

/* K and V of all tokens alike: attention gives V back. */
static const char* one_sequence(mkv_runtime* runtime) {
  const mkv_segment prompt[] = {
      {.size = sizeof(mkv_segment), .token_class = MKV_TEXT, .tokens = 8},
      {.size = sizeof(mkv_segment), .token_class = MKV_IMAGE, .tokens = 32}};
  mkv_sequence sequence = 0;
  if (mkv_begin(runtime, prompt, 2, INT64_MAX, &sequence, NULL) != MKV_OK) return "begin";
  for (int layer = 0; layer < LAYERS; ++layer) {
    const mkv_append_request append = {.size = sizeof(append),
                                       .sequence = sequence,
                                       .tokens = TOKENS,
                                       .keys = rows,
                                       .values = rows};
    if (mkv_append(runtime, &append, 1, layer, NULL, 0) != MKV_OK) return "append";
    const mkv_attend_request attend = {.size = sizeof(attend),
                                       .sequence = sequence,
                                       .tokens = 1,
                                       .queries = queries,
                                       .outputs = outputs};
    uint64_t word = 0, step = 0;
    const mkv_engine_event done = {.size = sizeof(done), .word = &word, .value = 1};
    if (mkv_attend(runtime, &attend, 1, layer, NULL, 0, &done, &step) != MKV_OK) return "attend";
    if (mkv_wait(runtime, step, INT64_C(10000000000)) != MKV_OK) return "wait";
    if (!mkv_has_happened(&done)) return "the event did not happen";
    for (int i = 0; i < QUERY_HEADS * HEAD_DIM; ++i)
      if (outputs[i] != rows[i % HEAD_DIM]) return "a wrong output";
    memset(outputs, 0, sizeof(outputs));
  }
  return mkv_release(runtime, sequence) == MKV_OK ? NULL : "release";
}

const char* run_a_c11_engine(void) {
  for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); ++i)
    rows[i] = (uint16_t)(0x3c00 + i % HEAD_DIM); /* from 1 on */
  const mkv_config config = {.size = sizeof(config),
                             .version = MKV_API_VERSION,
                             .layers = LAYERS,
                             .query_heads = QUERY_HEADS,
                             .kv_heads = KV_HEADS,
                             .head_dim = HEAD_DIM,
                             .policy = "text-centric",
                             .device_bytes = 8 << 20,
                             .host_bytes = 16 << 20,
                             .tables_bytes = 1 << 20,
                             .staging_slot_bytes = 1 << 20,
                             .partials_bytes = 1 << 20,
                             .attention_threads = 1};
  static char error_text[256];
  mkv_runtime* runtime = NULL;
  if (mkv_open(&config, &runtime, error_text, sizeof(error_text)) != MKV_OK) return error_text;
  const char* failed = NULL;
  if (mkv_register_memory(runtime, rows, sizeof(rows)) != MKV_OK ||
      mkv_register_memory(runtime, queries, sizeof(queries)) != MKV_OK ||
      mkv_register_memory(runtime, outputs, sizeof(outputs)) != MKV_OK)
    failed = "register";
  if (failed == NULL) failed = one_sequence(runtime);
  mkv_close(runtime);
  return failed;
}
