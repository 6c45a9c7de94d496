// Attention on the host's cores: a batch of sequences, split over KV heads and token ranges so that
// a single sequence keeps all cores busy.
#pragma once

#include <cstdint>
#include <memory>
#include <span>

#include "kernels/attention.hpp"

namespace modalkv {

struct SequenceAttention {
  Queries queries;
  std::span<const PageList> lists;  ///< pages of any mix of formats, of the same heads
  std::span<float> partials;        ///< overwritten; rows [queries.tokens, queries.heads]
};

/// A pool of threads and the memory for their partial results, which grows to what the largest
/// batch has needed. One caller at a time.
class HostAttention {
 public:
  /// The calling thread is one of them.
  explicit HostAttention(int threads);
  /// A thread a processor, and on these processors only: those of the node that holds the pages.
  explicit HostAttention(std::span<const int> cpus);
  ~HostAttention();
  HostAttention(HostAttention&&) = delete;

  /// Attends to all lists of every sequence; returns when all is done. The same input gives the
  /// same bytes, whichever thread does what.
  void attend(std::span<const SequenceAttention> batch);

  int threads() const;
  /// How often a thread worked from anywhere, as the system would not bind it.
  std::int64_t unbound() const;

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace modalkv
