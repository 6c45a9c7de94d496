#include "scheduler/batcher.hpp"

#include <algorithm>

namespace modalkv {

void Batcher::begin_step() {
  // Decoding sequences come first in the budget, whatever their age.
  tokens_left_ = limits_.max_step_tokens;
  for (Sequence& sequence : running_)
    if (sequence.decoding()) {
      sequence.chunk = std::min<Tokens>(1, tokens_left_);
      tokens_left_ -= sequence.chunk;
    }
  for (Sequence& sequence : running_)
    if (!sequence.decoding()) {
      sequence.chunk = std::min(sequence.prompt - sequence.computed, tokens_left_);
      tokens_left_ -= sequence.chunk;
    }
}

const Sequence* Batcher::candidate() {
  if (waiting_.empty() || tokens_left_ <= 0 ||
      static_cast<int>(running_.size()) >= limits_.max_sequences)
    return nullptr;
  Sequence& head = waiting_.front();
  head.chunk = std::min(head.prompt - head.computed, tokens_left_);
  return &head;
}

void Batcher::admit(Tokens reused) {
  running_.push_back(waiting_.front());
  waiting_.pop_front();
  Sequence& sequence = running_.back();
  sequence.computed = reused;
  sequence.chunk = std::min(sequence.prompt - sequence.computed, tokens_left_);
  tokens_left_ -= running_.back().chunk;
}

void Batcher::preempt_youngest() {
  Sequence sequence = running_.back();
  running_.pop_back();
  tokens_left_ += sequence.chunk;
  sequence.prompt += sequence.produced;
  sequence.prompt -= sequence.folded_output;
  sequence.folded_output = sequence.produced;
  sequence.computed = 0;
  sequence.chunk = 0;
  sequence.images_encoded = 0;
  ++sequence.preemptions;
  waiting_.push_front(sequence);
}

void Batcher::end_step(Nanos end_ns) {
  for (Sequence& sequence : running_) {
    if (sequence.chunk == 0) continue;
    sequence.computed += sequence.chunk;
    sequence.chunk = 0;
    if (!sequence.decoding()) continue;
    ++sequence.produced;
    sequence.last_token_ns = end_ns;
  }
}

void Batcher::remove_finished() {
  std::erase_if(running_,
                [](const Sequence& sequence) { return sequence.produced >= sequence.output; });
}

}  // namespace modalkv
