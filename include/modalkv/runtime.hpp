// The library that an engine links: it holds the KV of running sequences across a device and its
// host, takes K and V as the engine produces them, and attends over whatever is where.
//
// One thread, the engine's, calls a Runtime. No call but `poll` and `wait` waits for anything: work
// is submitted and its outcome is an event. A call that finds no room now answers `busy` and has
// changed nothing; poll, and try again. `no_space` says that nothing under way will make room:
// pause or release a sequence.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <optional>
#include <span>
#include <string>

#include "modalkv/error.hpp"
#include "modalkv/event.hpp"
#include "modalkv/hardware.hpp"
#include "modalkv/model.hpp"
#include "modalkv/op.hpp"
#include "modalkv/plan.hpp"
#include "modalkv/policy.hpp"
#include "modalkv/token.hpp"

namespace modalkv {

/// A small HTTP server on a thread of its own, for operators: GET /metrics (Prometheus' text),
/// /state (`describe`), /trace (the latest steps, for Perfetto) and /healthz. It asks no one who
/// they are: an address that others can reach shows them all that. Answers are refreshed by the
/// engine's next call, so an engine that calls nothing shows what was before, and how old that is.
struct AdminConfig {
  std::string address = "127.0.0.1";
  std::uint16_t port = 0;  ///< 0: any that is free, see `admin_port`
  int trace_steps = 16;    ///< in /trace, as far as 16,384 groups of operations go
};

struct RuntimeConfig {
  int layers = 1;
  int query_heads = 1;
  int kv_heads = 1;  ///< of this rank
  int head_dim = 128;
  NumberFormat input = NumberFormat::fp16;  ///< of queries, keys, values and outputs: fp16 or bf16
  float logit_scale = 0;                    ///< 0: 1 / sqrt(head_dim)
  std::int32_t window = 0;                  ///< of sliding-window attention; 0: all is visible
  PrecisionPolicy policy{};

  /// The GPU, by its number in CUDA's order. Nothing: memory and a core of this process stand in
  /// for one.
  std::optional<int> gpu{};
  Bytes device_bytes = kGiB;  ///< staging and partial results included
  /// The engine's own memory for that, which outlives the runtime; empty: it allocates.
  std::span<std::byte> device_memory{};
  Bytes host_bytes = 4 * kGiB;     ///< grows to that in the background
  Bytes tables_bytes = 32 * kMiB;  ///< of page tables and positions in flight
  Tokens own_page_tokens = kPageTokens;
  Tokens visual_page_tokens = 64;  ///< a multiple of 64
  int staging_slots = 2;           ///< how far streaming runs ahead
  Bytes staging_slot_bytes = 4 * kMiB;
  Bytes partials_bytes = 16 * kMiB;  ///< of attention in flight; bounds batches and chunks
  int attention_threads = 0;         ///< on the host; 0: the cores of its memory node
  /// Of the full pages that steps read, one in so many is verified, fewer where a queue would not
  /// take them; 1: all; 0: none.
  int verify_every = 64;
  Nanos overdue_ns = 5 * kSecond;  ///< of a group of operations, then it counts as lost

  /// What leaves first of the KV that stays for prompts to come, where memory is wanted.
  EvictionPolicy content_eviction = EvictionPolicy::cost_aware;
  /// About what the engine takes to compute a token's KV anew: what is worth keeping.
  Nanos recompute_token_ns = 50 * kMicrosecond;
  /// Where content goes that finds no room on the host, and stays for the next process too; of this
  /// runtime alone. Empty: nowhere. Loses at most what was not stored yet, however the process
  /// ends.
  std::string disk_directory{};
  Bytes disk_bytes = 16 * kGiB;  ///< taken at once
  /// With a disk: names the model, its weights and this rank. A directory of another is refused.
  std::string kv_tag{};

  /// Of a tensor-parallel group this rank holds `kv_heads` of the model's. Ranks with the same
  /// configuration and the same calls make the same plans.
  int tensor_parallel_ranks = 1;

  std::optional<AdminConfig> admin{};  ///< nothing: no server
};

/// Names a sequence until it is released; then it names nothing.
struct SequenceId {
  std::uint32_t index = ~std::uint32_t{0};
  std::uint32_t generation = 0;

  friend constexpr bool operator==(SequenceId, SequenceId) = default;
};

/// As many as there are.
inline constexpr Tokens kAllTokens = std::numeric_limits<Tokens>::max();

struct Begun {
  SequenceId sequence{};
  Tokens reused = 0;  ///< its first tokens, which count as appended in all layers
};

/// K and V [tokens, kv_heads, head_dim] of the sequence's next tokens in a layer; keys after RoPE.
/// They must stay until the next event of a step that attends to them, also where they were lost
/// and are appended again.
struct AppendRequest {
  SequenceId sequence{};
  Tokens tokens = 0;
  Address keys{}, values{};
};

/// Queries [tokens, query_heads, head_dim] of the sequence's last `tokens` appended tokens, each of
/// which sees what comes before it and itself; outputs alike.
struct AttendRequest {
  SequenceId sequence{};
  Tokens tokens = 1;
  Address queries{}, outputs{};
  Address log_sum_exp{};  ///< 32-bit floats [tokens, query_heads]; no bytes: not wanted
};

struct Attended {
  Status status = Status::ok;
  std::uint64_t step = 0;  ///< names its event
};

struct Forked {
  Status status = Status::ok;
  SequenceId sequence{};
};

struct Truncated {
  Status status = Status::ok;
  Tokens kept = 0;
};

/// The status of what is lost says why:
///   io_error   the device failed, or the disk that it was to come from
///   timeout    likewise, not within its time
///   checksum   a page was damaged, in memory or on disk
///   cancelled  something before it failed, or it was still to come from the disk when it was
///              forgotten there: by `forget_content`, or as a page beside it was damaged
///   no_space   it was to come from the disk, and the host has no room
///   rejected   K or V are infinite or no numbers: the same rows will be lost again
struct RuntimeEvent {
  enum class Kind : std::uint8_t {
    attended,  ///< `step` has ended; the outputs are good where `status` is ok, else undefined
    lost,      ///< KV of `sequence` from `first_token` on is lost: truncate to there, append again
  };
  Kind kind = Kind::attended;
  Status status = Status::ok;
  std::uint64_t step = 0;
  SequenceId sequence{};
  int layer = 0;
  Tokens first_token = 0;
};

struct RuntimeCounters {
  std::int64_t appended_tokens = 0;  ///< in all layers
  std::int64_t attends = 0;
  std::int64_t busy = 0;       ///< calls that found no room
  std::int64_t no_space = 0;   ///< calls that found no memory, and nothing that could make room
  Bytes streamed_bytes = 0;    ///< host to device for attention
  Bytes prefetched_bytes = 0;  ///< of them, ahead of their layer
  Bytes wasted_prefetch_bytes = 0;  ///< brought ahead and not used
  Bytes left_bytes = 0;             ///< device to host to stay
  Bytes arrived_bytes = 0;          ///< host to device to stay
  std::int64_t compressed_pages = 0;
  std::int64_t verified_pages = 0;
  std::int64_t corrupt_pages = 0;
  std::int64_t lost_tokens = 0;
  std::int64_t failed_groups = 0;
  std::int64_t timeouts = 0;
  /// Of image tokens, in all layers.
  std::int64_t scored_tokens = 0;    ///< by a chunk of the prompt's text behind the images
  std::int64_t promoted_tokens = 0;  ///< kept in high precision beside the text
  std::int64_t unscored_chunks = 0;  ///< in a layer: there was no room for their scores
  /// Sequences whose image tokens are all compressed alike after all, and why.
  std::int64_t unselected_for_memory = 0;  ///< they were compressed before, or had no room
  std::int64_t unselected_for_probes = 0;  ///< no text behind the images has scored them
  std::int64_t unselected_for_faults = 0;
  /// Of prompts' leading segments with known content.
  std::int64_t reuse_hits = 0;         ///< prompts of which some was reused
  std::int64_t reuse_misses = 0;       ///< prompts of which none was
  std::int64_t known_tokens = 0;       ///< in prompts that were begun
  std::int64_t reused_tokens = 0;      ///< of them
  std::int64_t kept_segments = 0;      ///< whose KV stays for others
  std::int64_t unkept_segments = 0;    ///< not: there was no room for a copy of their last page
  std::int64_t evicted_segments = 0;   ///< that left for want of memory
  std::int64_t spoiled_segments = 0;   ///< that left because a page of theirs was corrupt
  std::int64_t stored_segments = 0;    ///< to the disk
  std::int64_t unstored_segments = 0;  ///< that were to go there and did not
  std::int64_t loaded_segments = 0;    ///< from the disk
  std::int64_t unloaded_segments = 0;  ///< not: the disk failed, or the host had no room
};

class Runtime {
 public:
  /// Allocates device memory, reserves host memory and starts the device's threads. Without a GPU
  /// the device is memory of this process. Throws Error, also where the admin server cannot listen.
  /// The disk is opened last: where there can be no runtime without it, it stays as it is.
  explicit Runtime(const RuntimeConfig& config);
  Runtime(Runtime&&) noexcept;
  ~Runtime();

  /// Memory of the engine, which must outlive the runtime. Throws Error where there is too much.
  void register_memory(std::span<std::byte> memory);
  /// Of bytes in registered memory. Throws Error elsewhere.
  Address address(const void* begin, Bytes bytes) const;

  /// A sequence whose first tokens will be these; what is appended behind them is text. Nothing: a
  /// segment without tokens.
  ///
  /// Where leading segments say what their content is (Segment::content) and another sequence has
  /// appended the same ones, their KV is shared and need not be appended: it begins with `reused`
  /// tokens, fewer than the prompt. A content id names all that decides the KV of a segment beside
  /// what is before it: model, weights and adapter too where one runtime serves several. What comes
  /// from the disk can still be `lost`, and is appended then after all.
  ///
  /// Reuse ends behind an image or video, or in text or audio where a page of `own_page_tokens`
  /// ends: where that is depends on the prompt and the configuration alone. Of these places, as far
  /// as what is kept reaches, it is the last one at or before `max_reused_tokens`; before the first
  /// one nothing is reused. So ranks of a tensor-parallel group, which each keep their own, begin
  /// alike with the least of what `lookup` says on each of them.
  std::optional<Begun> begin(std::span<const Segment> prompt,
                             Tokens max_reused_tokens = kAllTokens);
  /// What `begin` would reuse of a prompt now, without a bound. Changes nothing.
  Tokens lookup(std::span<const Segment> prompt) const;
  /// All content that was kept is not to be reused any more: weights have changed, say. Running
  /// sequences go on. On disk it is erased; what is not when the process ends is found by the next
  /// one, unless its `kv_tag` is another.
  void forget_content();

  /// Whether a sequence of this prompt and so many tokens more would fit beside what runs and what
  /// is reserved. Changes nothing.
  bool can_admit(std::span<const Segment> prompt, Tokens new_tokens) const;
  /// Keeps device memory for the sequence's next tokens, until they are appended or another
  /// `reserve` replaces it: other sequences find no room there. `no_space`: there is not so much,
  /// and nothing was reserved.
  Status reserve(SequenceId sequence, Tokens tokens);

  /// Takes K and V of the next tokens of a batch of sequences, each once, when all of `after` have
  /// happened; encodes where the plan says so. All of them or none. All layers are given the same
  /// chunks, and the new pages of a chunk in all layers must fit the device at once: nothing of
  /// them moves before the last layer has them.
  ///   ok        an event will follow only where this fails: `lost`, for each sequence
  ///   busy      no room now
  ///   no_space  no memory, and nothing that could be moved
  ///   rejected  unknown or paused sequence, lost KV, wrong sizes
  Status append(std::span<const AppendRequest> batch, int layer,
                std::span<const EngineEvent> after = {});

  /// Attention of a batch at a layer, over all KV appended there, once all of `after` have
  /// happened; raises `done`, if it has a word, when the outputs are written or never will be.
  /// `rejected` too where partial results or tables can never fit the memory set aside for them:
  /// split the batch.
  Attended attend(std::span<const AttendRequest> batch, int layer,
                  std::span<const EngineEvent> after = {}, EngineEvent done = {});
  /// The same for an engine that keeps some KV itself: every query sees all KV that the runtime
  /// holds of its sequence at that layer, whatever its position, and `log_sum_exp` says with which
  /// weight the output merges with the engine's own.
  Attended attend_partial(std::span<const AttendRequest> batch, int layer,
                          std::span<const EngineEvent> after = {}, EngineEvent done = {});
  /// The step's event will say `cancelled`, once nothing touches its memory any more. False: it has
  /// none to come.
  bool cancel(std::uint64_t step);
  /// Begins to bring to the device what a step of this batch will stream first. A hint: what the
  /// step does not want after all is wasted, and counted.
  Status prefetch(std::span<const SequenceId> batch);

  /// Between two steps: KV that no other running sequence uses goes to the host, as room permits.
  Status pause(SequenceId sequence);
  /// May be attended to at once; what is wanted on the device comes back.
  Status resume(SequenceId sequence);
  /// Another sequence with the same tokens, between two steps. Full blocks are shared.
  Forked fork(SequenceId sequence);
  /// Drops all tokens but the first `tokens`, or somewhat more: what is compressed or shared goes
  /// by the block.
  Truncated truncate(SequenceId sequence, Tokens tokens);
  Status release(SequenceId sequence);

  /// Goes on with what is in flight; the next event. Nothing after `timeout_ns`, or as soon as
  /// something in flight has ended without an event: there may be room now for what was `busy`.
  std::optional<RuntimeEvent> poll(Nanos timeout_ns);
  /// The outcome of a step; other events are kept for `poll`. `timeout`: not yet.
  Status wait(std::uint64_t step, Nanos timeout_ns);

  /// Plans for the sequences that run now and moves their KV accordingly. Nothing where not even
  /// the most compact placement fits: the plan stays as it was. Both are remembered: from now on
  /// `poll` and `wait` compare the time of decode steps with the plan's, and plan again when they
  /// drift apart, for a machine as fast as it was found to be. Not in a tensor-parallel group,
  /// whose ranks have to plan alike: there the engine asks all of them.
  std::optional<Plan> replan(const ModelGeometry& model, const HardwareProfile& hardware);

  /// Appended to a layer and not lost.
  Tokens tokens(SequenceId sequence, int layer) const;
  const RuntimeCounters& counters() const;
  /// Lines for people: memory, capacity in tokens, plans, sequences and where their blocks are.
  std::string describe() const;
  /// The latest plans and why they were made, a line each.
  std::string plan_history() const;
  /// What the admin server serves at /metrics, of now: for engines with a server of their own.
  /// Queues and steps are in it once an admin server or a plan has them watched.
  std::string metrics() const;
  /// Where the admin server listens; 0: there is none.
  std::uint16_t admin_port() const;

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace modalkv
