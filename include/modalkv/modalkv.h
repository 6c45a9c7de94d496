/* The C API of the library that an engine links: modalkv/runtime.hpp, call by call, for C11 and for
   whatever calls C. What the calls do is said there; here is what differs.

   A runtime is called by one thread at a time. No call but mkv_poll and mkv_wait waits for
   anything. No exception comes out. A null pointer where something must be, or a size that cannot
   be, is MKV_REJECTED; what a pointer leads to is the caller's word.

   Every struct begins with its size, sizeof the struct, and zero in any other field stands for its
   default. So a caller that was compiled with an older header is served as before, and one with a
   newer header as long as it leaves at zero what the library does not know yet; otherwise
   MKV_UNSUPPORTED. All structs of an array have the same size. In a struct that a call fills, the
   caller sets `size` before. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define MKV_API_VERSION 1u

/* Values never change; new ones are added. */
typedef int32_t mkv_status;
enum {
  MKV_OK = 0,
  MKV_BUSY = 1,        /* no room now, nothing has changed: poll, and try again */
  MKV_REJECTED = 2,    /* malformed or out of bounds, nothing has changed: never again like this */
  MKV_UNSUPPORTED = 3, /* the library does not know what was asked for */
  MKV_IO_ERROR = 4,    /* the device failed */
  MKV_CHECKSUM = 5,    /* KV was not what it should be */
  MKV_TIMEOUT = 6,     /* not within its time */
  MKV_CANCELLED = 7,   /* was asked to stop, or something before it failed */
  MKV_NO_SPACE = 8,    /* nothing under way will make room: pause or release a sequence */
  MKV_ERROR = 100,     /* set-up, input or environment: the error text says what is wrong */
  MKV_INTERNAL = 101   /* what should not happen: close the runtime */
};

/* "ok", "busy", ...; of no status: "unknown". Any thread. */
const char* mkv_status_name(mkv_status status);

/* Of the library that is loaded. Any thread. */
uint32_t mkv_api_version(void);
/* "0.1.0" */
const char* mkv_version(void);

enum { MKV_FP16 = 0, MKV_BF16 = 1 };                                /* input */
enum { MKV_RESIDENT = 1, MKV_STREAMED = 2, MKV_ON_CPU = 4 };        /* places: on the device, ... */
enum { MKV_TEXT = 0, MKV_IMAGE = 1, MKV_VIDEO = 2, MKV_AUDIO = 3 }; /* token_class */
enum { MKV_FLOOR_POLICY = 0, MKV_FLOOR_HIGH = 1 };                  /* floor: never compressed */
enum { MKV_EVENT_ATTENDED = 0, MKV_EVENT_LOST = 1 };                /* kind */

typedef struct mkv_config {
  size_t size;
  uint32_t version; /* MKV_API_VERSION */

  /* The model, of this rank. These have no default. */
  int32_t layers;
  int32_t query_heads;
  int32_t kv_heads;
  int32_t head_dim;
  int32_t input;     /* of queries, keys, values and outputs */
  float logit_scale; /* 1 / sqrt(head_dim) */
  int32_t window;    /* of sliding-window attention; 0: all is visible */

  /* A policy by its name, as `modalkv simulate --policy` knows it, "fp16-resident" by default, and
     what of it is to be otherwise: by default nothing. Formats by name: "fp16", "bf16", "fp8",
     "nvfp4", "mxfp4", "int8", "int4", "int2", integers with suffixes as in "int4-g64" (a scale per
     64 elements), "int8-int4" for K and V apart, "none". */
  const char* policy;
  double keep;            /* share of tokens in high precision, when the library plans */
  const char* high;       /* by default that of `input` */
  const char* text_low;   /* of text that is compressed */
  const char* visual_low; /* of images and video that are compressed */
  uint32_t places;        /* where KV may be */
  int32_t high_first_layers;
  int32_t high_last_layers;
  int32_t tensor_parallel_ranks; /* 1 */
  int64_t pinned_tokens;         /* first tokens of a sequence, never compressed; -1: none */
  int64_t window_tokens;         /* the most recent, likewise */

  int64_t device_bytes;       /* 1 GiB, staging and partial results included */
  void* device_memory;        /* the engine's own of device_bytes, which outlives the runtime */
  int64_t host_bytes;         /* 4 GiB */
  int64_t tables_bytes;       /* 32 MiB */
  int64_t own_page_tokens;    /* 16 */
  int64_t visual_page_tokens; /* 64 */
  int32_t staging_slots;      /* 2 */
  int32_t attention_threads;  /* on the host: the cores of its memory node */
  int64_t staging_slot_bytes; /* 4 MiB */
  int64_t partials_bytes;     /* 16 MiB */
  int64_t verify_every;       /* 64; 1: all closed pages are checked; -1: none */
  int64_t overdue_ns;         /* 5 s */

  /* What leaves first of the content that is kept for prompts to come: "lru", "tiny-lfu",
     "cost-aware", which is the default. */
  const char* content_eviction;
  int64_t recompute_token_ns; /* 50 us: what computing a token's KV takes, about */
  /* Where content goes that finds no room on the host, and stays for the next process too; null:
     nowhere. With a name for the model, its weights and this rank. */
  const char* disk_directory;
  const char* kv_tag;
  int64_t disk_bytes; /* 16 GiB */

  /* 1 + the number of the GPU in CUDA's order; 0: memory and a core of this process stand in for
     one. */
  int32_t gpu;
} mkv_config;

typedef struct mkv_runtime mkv_runtime;

/* Names a sequence until it is released; then it names nothing. Never 0. */
typedef uint64_t mkv_sequence;

typedef struct mkv_segment {
  size_t size;
  int32_t token_class;
  uint32_t floor;
  int64_t tokens;      /* 1 at least */
  uint64_t content[4]; /* 256 bits that name the content; all zero: shared with nobody */
} mkv_segment;

/* The content of text: a hash of its token ids, in order, the same on every machine and in C++. Of
   at most 2^31 - 1 tokens; `token_ids` may be null where there are none. Any thread. */
mkv_status mkv_content_of_tokens(const int32_t* token_ids, size_t tokens, uint64_t content[4]);

/* GPU, host and engine wait for each other through words: an event has happened once the word,
   aligned to 8 bytes, is at least `value`. Keep the words alive as modalkv/event.hpp says. */
typedef struct mkv_engine_event {
  size_t size;
  uint64_t* word;
  uint64_t value;
} mkv_engine_event;

/* Lets it happen, and wakes who waits for it. Any thread. */
mkv_status mkv_let_happen(const mkv_engine_event* event);
/* 1, or 0: not yet, or no event at all. Any thread. */
int32_t mkv_has_happened(const mkv_engine_event* event);

/* K and V [tokens, kv_heads, head_dim] of the sequence's next tokens in a layer, in registered
   memory; keys after RoPE. They must stay until the next event of a step that attends to them. */
typedef struct mkv_append_request {
  size_t size;
  mkv_sequence sequence;
  int64_t tokens;
  const void* keys;
  const void* values;
} mkv_append_request;

/* Queries [tokens, query_heads, head_dim] of the sequence's last tokens and room for outputs of the
   same shape, in registered memory. They must stay until the step's event. */
typedef struct mkv_attend_request {
  size_t size;
  mkv_sequence sequence;
  int64_t tokens;
  const void* queries;
  void* outputs;
  float* log_sum_exp; /* [tokens, query_heads]; null: not wanted */
} mkv_attend_request;

typedef struct mkv_event {
  size_t size;
  int32_t kind;
  mkv_status status;     /* of what is lost: why, as modalkv/runtime.hpp lists it */
  uint64_t step;         /* attended: has ended; the outputs are good where `status` is ok */
  mkv_sequence sequence; /* lost: its KV from first_token on; truncate to there, append again */
  int64_t first_token;
  int32_t layer;
  int32_t reserved;
} mkv_event;

typedef struct mkv_counters {
  size_t size;
  int64_t appended_tokens; /* in all layers */
  int64_t attends;
  int64_t busy;     /* calls that found no room */
  int64_t no_space; /* calls that found no memory, and nothing that could make room */
  int64_t streamed_bytes;
  int64_t prefetched_bytes;
  int64_t wasted_prefetch_bytes;
  int64_t left_bytes;
  int64_t arrived_bytes;
  int64_t compressed_pages;
  int64_t verified_pages;
  int64_t corrupt_pages;
  int64_t lost_tokens;
  int64_t failed_groups;
  int64_t timeouts;
  int64_t known_tokens;  /* with known content, in prompts that were begun */
  int64_t reused_tokens; /* of them */
  int64_t evicted_segments;
  int64_t stored_segments; /* to the disk */
  int64_t loaded_segments; /* from the disk */
} mkv_counters;

/* A runtime, or null and a line of text that says why there is none. `error_text` may be null where
   `error_bytes` is 0; a longer text is cut. */
mkv_status mkv_open(const mkv_config* config, mkv_runtime** runtime, char* error_text,
                    size_t error_bytes);
/* Waits until nothing touches the engine's memory any more. Of null: nothing happens. */
void mkv_close(mkv_runtime* runtime);

/* Why the latest call on this runtime failed, as far as there is more to say than its status; empty
   otherwise. As snprintf: at most `bytes` with the terminator, returns the length of the whole. */
size_t mkv_error_text(const mkv_runtime* runtime, char* text, size_t bytes);

/* Memory of the engine, which must outlive the runtime: what requests point to lies in it. */
mkv_status mkv_register_memory(mkv_runtime* runtime, void* memory, size_t bytes);

/* `reused`, which may be null: leading tokens that are there already, and are not appended.
   `max_reused_tokens`, 0 or more: the most that it may be, INT64_MAX for all that are there. Ranks
   of a tensor-parallel group give the least of what mkv_lookup says on each of them. */
mkv_status mkv_begin(mkv_runtime* runtime, const mkv_segment* prompt, size_t segments,
                     int64_t max_reused_tokens, mkv_sequence* sequence, int64_t* reused);
/* What mkv_begin would reuse of a prompt now, without a bound. Changes nothing. */
mkv_status mkv_lookup(mkv_runtime* runtime, const mkv_segment* prompt, size_t segments,
                      int64_t* reusable);
/* No content that was kept is reused any more; running sequences go on. */
mkv_status mkv_forget_content(mkv_runtime* runtime);
/* Whether it fits: MKV_OK, or MKV_NO_SPACE. Changes nothing. */
mkv_status mkv_can_admit(mkv_runtime* runtime, const mkv_segment* prompt, size_t segments,
                         int64_t new_tokens);
mkv_status mkv_reserve(mkv_runtime* runtime, mkv_sequence sequence, int64_t tokens);

/* `after`: what must have happened first; null where `events` is 0. */
mkv_status mkv_append(mkv_runtime* runtime, const mkv_append_request* batch, size_t requests,
                      int32_t layer, const mkv_engine_event* after, size_t events);
/* `done` is raised at the end, null: nothing is. `step` names the event to come. */
mkv_status mkv_attend(mkv_runtime* runtime, const mkv_attend_request* batch, size_t requests,
                      int32_t layer, const mkv_engine_event* after, size_t events,
                      const mkv_engine_event* done, uint64_t* step);
mkv_status mkv_attend_partial(mkv_runtime* runtime, const mkv_attend_request* batch,
                              size_t requests, int32_t layer, const mkv_engine_event* after,
                              size_t events, const mkv_engine_event* done, uint64_t* step);
/* MKV_REJECTED: the step has no event to come. */
mkv_status mkv_cancel(mkv_runtime* runtime, uint64_t step);
mkv_status mkv_prefetch(mkv_runtime* runtime, const mkv_sequence* batch, size_t sequences);

mkv_status mkv_pause(mkv_runtime* runtime, mkv_sequence sequence);
mkv_status mkv_resume(mkv_runtime* runtime, mkv_sequence sequence);
mkv_status mkv_fork(mkv_runtime* runtime, mkv_sequence sequence, mkv_sequence* copy);
/* `kept`, which may be null: `tokens`, or less where a whole block had to go. */
mkv_status mkv_truncate(mkv_runtime* runtime, mkv_sequence sequence, int64_t tokens, int64_t* kept);
mkv_status mkv_release(mkv_runtime* runtime, mkv_sequence sequence);

/* MKV_TIMEOUT: no event, after the time or as soon as something in flight has ended. The outcome of
   what an event tells is in the event. */
mkv_status mkv_poll(mkv_runtime* runtime, int64_t timeout_ns, mkv_event* event);
/* The outcome of a step; MKV_TIMEOUT: not yet, or no such step. Other events are kept. */
mkv_status mkv_wait(mkv_runtime* runtime, uint64_t step, int64_t timeout_ns);

/* Appended to a layer and not lost; 0 of no sequence or layer. */
int64_t mkv_tokens(const mkv_runtime* runtime, mkv_sequence sequence, int32_t layer);
mkv_status mkv_read_counters(const mkv_runtime* runtime, mkv_counters* counters);
/* Lines for people; as snprintf. */
size_t mkv_describe(const mkv_runtime* runtime, char* text, size_t bytes);

#ifdef __cplusplus
}
#endif
