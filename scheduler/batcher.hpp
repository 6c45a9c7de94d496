// Continuous batching with chunked prefill: first come, first served; decoding sequences first, one
// token each, then prefill chunks within the step's token budget; the youngest sequence is
// preempted by recomputation.
#pragma once

#include <algorithm>
#include <cstdint>
#include <deque>
#include <span>
#include <vector>

#include "modalkv/page.hpp"
#include "modalkv/units.hpp"

namespace modalkv {

struct Sequence {
  std::uint32_t request = 0;  ///< index in the trace
  Tokens prompt =
      0;  ///< to compute before the next token: after a preemption, with what was generated
  Tokens visual = 0;  ///< of the prompt; they come first in it
  std::int32_t images = 0;
  Tokens output = 0;         ///< asked for
  Tokens computed = 0;       ///< tokens that have KV
  Tokens produced = 0;       ///< output tokens so far
  Tokens chunk = 0;          ///< tokens of this step
  Tokens folded_output = 0;  ///< of `produced`, part of `prompt` since the last preemption
  std::int32_t images_encoded = 0;
  std::int32_t preemptions = 0;
  Nanos last_token_ns = 0;

  bool decoding() const { return computed >= prompt; }
  Tokens context() const { return computed + chunk; }  ///< at the end of this step
  /// KV to hold for it, in whole pages: of this step, or of its whole prompt where that is more.
  Tokens held_tokens() const { return round_up(context(), kPageTokens); }
  Tokens reserved_tokens() const { return round_up(std::max(context(), prompt), kPageTokens); }
};

struct BatchLimits {
  int max_sequences = 256;
  Tokens max_step_tokens = 2048;
};

/// Who runs in a step. The caller decides who may join (candidate, admit) and who must leave
/// (preempt_youngest). Not thread-safe. Every call is O(running) at most.
class Batcher {
 public:
  explicit Batcher(const BatchLimits& limits) : limits_(limits) {}

  void enqueue(const Sequence& sequence) { waiting_.push_back(sequence); }

  /// Gives every running sequence its tokens of the next step.
  void begin_step();
  /// The next waiting sequence with the chunk that it would get, or null where none waits or no
  /// room is left.
  const Sequence* candidate();
  /// The candidate joins; KV of its first `reused` tokens (fewer than its prompt) is there already.
  void admit(Tokens reused);
  /// The youngest running sequence returns to the head of the queue; it will recompute. Running
  /// must not be empty.
  void preempt_youngest();
  /// Marks the step's tokens computed; then `finished` sequences can be taken out.
  void end_step(Nanos end_ns);
  /// Removes sequences whose output is complete, keeping order.
  void remove_finished();

  std::span<const Sequence> running() const { return running_; }
  std::span<Sequence> running() { return running_; }
  std::int64_t waiting() const { return static_cast<std::int64_t>(waiting_.size()); }
  bool idle() const { return running_.empty() && waiting_.empty(); }

 private:
  BatchLimits limits_;
  std::deque<Sequence> waiting_;
  std::vector<Sequence> running_;  // oldest first
  Tokens tokens_left_ = 0;
};

}  // namespace modalkv
