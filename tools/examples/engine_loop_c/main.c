/* An engine's loop in C: a toy decoder with random weights answers three prompts at once, in one
   batch, on a device too small for their KV in 16 bits. When a step tells that KV is lost, the
   sequence goes back to where it was lost and computes the rest anew. At the end the first one is
   asked something else about its image, whose KV is still there. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "modalkv/modalkv.h"

enum {
  LAYERS = 3,
  QUERY_HEADS = 4,
  KV_HEADS = 2,
  HEAD_DIM = 64,
  HIDDEN = 128,
  VOCABULARY = 256,
  SEQUENCES = 3,
  CHUNK = 64,
  IMAGE = 192,
  NEW_TOKENS = 16,
  MOST_TOKENS = 512,
  QUERY_ROW = QUERY_HEADS * HEAD_DIM,
  KV_ROW = KV_HEADS * HEAD_DIM
};
static const int64_t patience_ns = INT64_C(10000000000);

static void fail(const char* what, mkv_status status, const mkv_runtime* runtime) {
  char text[256];
  mkv_error_text(runtime, text, sizeof(text));
  fprintf(stderr, "engine_loop_c: %s: %s %s\n", what, mkv_status_name(status), text);
  exit(1);
}

/* bfloat16 is the upper half of a float. */
static uint16_t to_bf16(float value) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof(bits));
  return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}
static float from_bf16(uint16_t half) {
  const uint32_t bits = (uint32_t)half << 16;
  float value;
  memcpy(&value, &bits, sizeof(value));
  return value;
}

static uint32_t state = 1;
static float random_weight(int columns) {
  state = state * 1664525u + 1013904223u;
  return ((float)(state >> 8) / 8388608.0f - 1) * sqrtf(3.0f / (float)columns);
}
static float* matrix(int rows, int columns) {
  float* weights = malloc(sizeof(float) * (size_t)rows * (size_t)columns);
  if (weights == NULL) exit(1);
  for (int i = 0; i < rows * columns; ++i) weights[i] = random_weight(columns);
  return weights;
}
static float row_sum(const float* weights, int row, int columns, const float* from) {
  float sum = 0;
  for (int c = 0; c < columns; ++c) sum += weights[row * columns + c] * from[c];
  return sum;
}

typedef struct {
  float *query, *key, *value, *output;
} Layer;

/* All tokens of a sequence so far, as what enters the first layer. KV can be made anew of it. */
typedef struct {
  mkv_sequence id;
  int tokens;   /* known */
  int computed; /* of them have KV in all layers */
  int prompt_tokens;
  float (*embeddings)[HIDDEN];
} Sequence;

/* What a step computes: the next `tokens` of some sequences. The rows of a batch lie one after
   another in memory that the runtime knows. */
typedef struct {
  Sequence* sequence;
  int tokens;
  int first_row;
} Work;

static Layer layers[LAYERS];
static float *embedding, *head;
static uint16_t queries[SEQUENCES * CHUNK * QUERY_ROW], outputs[SEQUENCES * CHUNK * QUERY_ROW];
static uint16_t keys[SEQUENCES * CHUNK * KV_ROW], values[SEQUENCES * CHUNK * KV_ROW];
static float hidden[SEQUENCES * CHUNK][HIDDEN];

static void project(const Layer* layer, int rows) {
  for (int row = 0; row < rows; ++row) {
    for (int i = 0; i < QUERY_ROW; ++i)
      queries[row * QUERY_ROW + i] = to_bf16(row_sum(layer->query, i, HIDDEN, hidden[row]));
    for (int i = 0; i < KV_ROW; ++i) {
      keys[row * KV_ROW + i] = to_bf16(row_sum(layer->key, i, HIDDEN, hidden[row]));
      values[row * KV_ROW + i] = to_bf16(row_sum(layer->value, i, HIDDEN, hidden[row]));
    }
  }
}

static void add_attended(const Layer* layer, int rows) {
  float attended[QUERY_ROW];
  for (int row = 0; row < rows; ++row) {
    for (int i = 0; i < QUERY_ROW; ++i) attended[i] = from_bf16(outputs[row * QUERY_ROW + i]);
    for (int i = 0; i < HIDDEN; ++i)
      hidden[row][i] += row_sum(layer->output, i, QUERY_ROW, attended);
  }
}

/* Whatever is told beside the outcome of the step that is waited for. 1: KV was lost. */
static int hear(mkv_runtime* runtime, Sequence* sequences, int64_t timeout_ns) {
  mkv_event event = {.size = sizeof(event)};
  int lost = 0;
  while (mkv_poll(runtime, timeout_ns, &event) == MKV_OK) {
    timeout_ns = 0;
    if (event.kind != MKV_EVENT_LOST) continue;
    lost = 1;
    for (int s = 0; s < SEQUENCES; ++s) {
      if (sequences[s].id != event.sequence) continue;
      int64_t kept = 0;
      const mkv_status status = mkv_truncate(runtime, event.sequence, event.first_token, &kept);
      if (status != MKV_OK) fail("truncate", status, runtime);
      if (sequences[s].computed > kept) sequences[s].computed = (int)kept;
    }
  }
  return lost;
}

/* One layer of a step. 0: it failed, and so does the step. */
static int run_layer(mkv_runtime* runtime, Sequence* sequences, const Work* work, int count,
                     int layer) {
  mkv_append_request appends[SEQUENCES];
  mkv_attend_request attends[SEQUENCES];
  for (int i = 0; i < count; ++i) {
    const size_t row = (size_t)work[i].first_row;
    appends[i] = (mkv_append_request){.size = sizeof(mkv_append_request),
                                      .sequence = work[i].sequence->id,
                                      .tokens = work[i].tokens,
                                      .keys = keys + row * KV_ROW,
                                      .values = values + row * KV_ROW};
    attends[i] = (mkv_attend_request){.size = sizeof(mkv_attend_request),
                                      .sequence = work[i].sequence->id,
                                      .tokens = work[i].tokens,
                                      .queries = queries + row * QUERY_ROW,
                                      .outputs = outputs + row * QUERY_ROW};
  }
  /* No room now: something in flight makes some. A real engine would do other work meanwhile. */
  mkv_status status;
  while ((status = mkv_append(runtime, appends, (size_t)count, layer, NULL, 0)) == MKV_BUSY)
    if (hear(runtime, sequences, 10000000)) return 0;
  uint64_t step = 0;
  if (status == MKV_OK)
    while ((status = mkv_attend(runtime, attends, (size_t)count, layer, NULL, 0, NULL, &step)) ==
           MKV_BUSY)
      if (hear(runtime, sequences, 10000000)) return 0;
  /* What was lost since the last poll is rejected: then there is an event to hear. */
  if (status == MKV_REJECTED && hear(runtime, sequences, 0)) return 0;
  if (status != MKV_OK) fail("a layer", status, runtime);
  status = mkv_wait(runtime, step, patience_ns);
  if (status == MKV_TIMEOUT) fail("attention", status, runtime);
  return status == MKV_OK;
}

/* The next tokens of all that have some. Their KV counts when every layer was ok; else all layers
   go back to what they had. */
static void run_step(mkv_runtime* runtime, Sequence* sequences, const Work* work, int count) {
  int rows = 0;
  for (int i = 0; i < count; ++i) {
    const Sequence* sequence = work[i].sequence;
    memcpy(hidden[work[i].first_row], sequence->embeddings[sequence->computed],
           sizeof(hidden[0]) * (size_t)work[i].tokens);
    rows = work[i].first_row + work[i].tokens;
  }
  int good = 1;
  for (int layer = 0; layer < LAYERS && good; ++layer) {
    project(&layers[layer], rows);
    good = run_layer(runtime, sequences, work, count, layer);
    if (good) add_attended(&layers[layer], rows);
  }
  if (hear(runtime, sequences, 0)) good = 0;
  for (int i = 0; i < count; ++i) {
    Sequence* sequence = work[i].sequence;
    if (good) {
      sequence->computed += work[i].tokens;
      continue;
    }
    int64_t kept = 0;
    const mkv_status status = mkv_truncate(runtime, sequence->id, sequence->computed, &kept);
    if (status != MKV_OK) fail("truncate", status, runtime);
    sequence->computed = (int)kept;
  }
  for (int i = 0; i < count && good; ++i) {
    Sequence* sequence = work[i].sequence;
    if (sequence->computed < sequence->tokens) continue;
    /* The last known token: the next one is chosen. */
    const float* last = hidden[work[i].first_row + work[i].tokens - 1];
    int best = 0;
    float most = -INFINITY;
    for (int token = 0; token < VOCABULARY; ++token) {
      const float logit = row_sum(head, token, HIDDEN, last);
      if (logit > most) most = logit, best = token;
    }
    memcpy(sequence->embeddings[sequence->tokens++], embedding + best * HIDDEN,
           sizeof(float) * HIDDEN);
  }
}

/* Text, an image, a question. The first two say what their content is, in 256 bits. An engine
   hashes the ids of the tokens, and the pixels with how they are prepared; here are numbers. */
static void begin(mkv_runtime* runtime, Sequence* sequence, uint64_t number, int text) {
  const mkv_segment prompt[] = {{.size = sizeof(mkv_segment),
                                 .token_class = MKV_TEXT,
                                 .tokens = text,
                                 .content = {number, 0, 0, 1}},
                                {.size = sizeof(mkv_segment),
                                 .token_class = MKV_IMAGE,
                                 .tokens = IMAGE,
                                 .content = {number, 0, 0, 2}},
                                {.size = sizeof(mkv_segment), .tokens = text}};
  mkv_status status = mkv_can_admit(runtime, prompt, 3, NEW_TOKENS);
  if (status != MKV_OK) fail("admission", status, runtime);
  int64_t reused = 0;
  status = mkv_begin(runtime, prompt, 3, INT64_MAX, &sequence->id, &reused);
  if (status != MKV_OK) fail("begin", status, runtime);
  sequence->tokens = sequence->prompt_tokens = 2 * text + IMAGE;
  sequence->computed = (int)reused; /* and is not appended */
  printf("%d of %d prompt tokens are reused\n", sequence->computed, sequence->tokens);
}

/* Continuous batching at its simplest: a step takes a chunk or a token of each that is not done.
   The last answered token needs no KV. */
static void answer(mkv_runtime* runtime, Sequence* sequences) {
  for (int steps = 0; steps < 1000; ++steps) {
    Work work[SEQUENCES];
    int count = 0, rows = 0;
    for (int s = 0; s < SEQUENCES; ++s) {
      Sequence* sequence = &sequences[s];
      if (sequence->tokens == sequence->prompt_tokens + NEW_TOKENS) continue;
      const int missing = sequence->tokens - sequence->computed;
      work[count] = (Work){sequence, missing < CHUNK ? missing : CHUNK, rows};
      rows += work[count++].tokens;
    }
    if (count == 0) break;
    run_step(runtime, sequences, work, count);
  }
}

static mkv_runtime* open_runtime(void) {
  const mkv_config config = {.size = sizeof(config),
                             .version = MKV_API_VERSION,
                             .layers = LAYERS,
                             .query_heads = QUERY_HEADS,
                             .kv_heads = KV_HEADS,
                             .head_dim = HEAD_DIM,
                             .input = MKV_BF16,
                             .policy = "text-centric",
                             .visual_low = "int4",
                             .window_tokens = 16,
                             .device_bytes = 2200 << 10,
                             .host_bytes = 64 << 20,
                             .tables_bytes = 2 << 20,
                             .staging_slot_bytes = 128 << 10,
                             .partials_bytes = 1 << 20};
  char text[256];
  mkv_runtime* runtime = NULL;
  const mkv_status status = mkv_open(&config, &runtime, text, sizeof(text));
  if (status != MKV_OK) {
    fprintf(stderr, "engine_loop_c: %s: %s\n", mkv_status_name(status), text);
    exit(1);
  }
  if (mkv_register_memory(runtime, queries, sizeof(queries)) != MKV_OK ||
      mkv_register_memory(runtime, outputs, sizeof(outputs)) != MKV_OK ||
      mkv_register_memory(runtime, keys, sizeof(keys)) != MKV_OK ||
      mkv_register_memory(runtime, values, sizeof(values)) != MKV_OK)
    fail("registering memory", MKV_ERROR, runtime);
  return runtime;
}

int main(void) {
  printf("modalkv %s\n", mkv_version());
  for (int layer = 0; layer < LAYERS; ++layer)
    layers[layer] = (Layer){matrix(QUERY_ROW, HIDDEN), matrix(KV_ROW, HIDDEN),
                            matrix(KV_ROW, HIDDEN), matrix(HIDDEN, QUERY_ROW)};
  embedding = matrix(VOCABULARY, HIDDEN);
  head = matrix(VOCABULARY, HIDDEN);
  mkv_runtime* runtime = open_runtime();
  Sequence sequences[SEQUENCES];
  for (int s = 0; s < SEQUENCES; ++s) {
    sequences[s].embeddings = (float(*)[HIDDEN])matrix(MOST_TOKENS, HIDDEN);
    begin(runtime, &sequences[s], (uint64_t)s, 10 + 5 * s);
  }
  answer(runtime, sequences);
  int answered = 0;
  for (int s = 0; s < SEQUENCES; ++s) answered += sequences[s].tokens - sequences[s].prompt_tokens;

  /* Another question: its own embeddings, behind those of the same text and image. */
  Sequence* first = &sequences[0];
  mkv_status status = mkv_release(runtime, first->id);
  if (status != MKV_OK) fail("release", status, runtime);
  for (int token = 10 + IMAGE; token < first->prompt_tokens; ++token)
    for (int i = 0; i < HIDDEN; ++i) first->embeddings[token][i] = random_weight(HIDDEN);
  begin(runtime, first, 0, 10);
  answer(runtime, sequences);

  char lines[4096];
  mkv_describe(runtime, lines, sizeof(lines));
  printf("%s", lines);
  mkv_counters counters = {.size = sizeof(counters)};
  mkv_read_counters(runtime, &counters);
  printf("%lld pages compressed, %lld bytes left for the host; %lld of %lld known tokens reused\n",
         (long long)counters.compressed_pages, (long long)counters.left_bytes,
         (long long)counters.reused_tokens, (long long)counters.known_tokens);
  for (int s = 0; s < SEQUENCES; ++s) {
    status = mkv_release(runtime, sequences[s].id);
    if (status != MKV_OK) fail("release", status, runtime);
    free(sequences[s].embeddings);
  }
  mkv_close(runtime);
  for (int layer = 0; layer < LAYERS; ++layer) {
    free(layers[layer].query);
    free(layers[layer].key);
    free(layers[layer].value);
    free(layers[layer].output);
  }
  free(embedding);
  free(head);
  printf("%d sequences answered %d tokens\n", SEQUENCES, answered);
  const int again = first->tokens - first->prompt_tokens;
  return answered == SEQUENCES * NEW_TOKENS && again == NEW_TOKENS ? 0 : 1;
}
