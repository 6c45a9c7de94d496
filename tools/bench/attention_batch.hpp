// The queries and the KV of a batch of sequences, ready for attention.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "offload/host_attention.hpp"
#include "tools/bench/attention_case.hpp"
#include "tools/bench/kv_copies.hpp"

namespace modalkv {

/// `batch` lengths whose mean is `mean_tokens`, evenly spread from a half of it to one and a half.
std::vector<Tokens> batch_lengths(Tokens mean_tokens, int batch);

/// The page of a part of the mix. Throws Error where there is none.
PageShape page_shape(const AttentionCase& options, const FormatShare& part);

class AttentionBatch {
 public:
  /// Throws Error where the copies do not fit the memory that is left.
  AttentionBatch(const AttentionCase& options, Bytes last_level_cache_bytes);

  /// All sequences over a copy of their KV: of one part of the mix, or with `part` < 0 of all.
  /// Valid until the next call.
  std::span<const SequenceAttention> sequences(int copy, int part);

  /// Query heads of the first sequence that an exact attention can do in a second or two.
  int heads_to_check() const;
  /// Relative L2 error of the first sequence's output over so many heads, after an attention over
  /// all parts.
  double error_of_first_sequence(int heads) const;

  /// Of all sequences, in all parts or one.
  Tokens total_tokens() const;
  Tokens part_tokens(std::size_t part) const;
  /// What attention has to read, of all parts.
  Bytes bytes_read() const;
  /// Encoded, in all parts.
  std::size_t distinct_pages() const;
  /// Of the largest part, all copies: the ceilings read the same bytes as the attention.
  std::span<const std::byte> memory() const;
  int copies() const { return copies_; }
  const std::vector<Tokens>& lengths() const { return lengths_; }
  const std::vector<KvCopies>& parts() const { return parts_; }

 private:
  std::size_t partial_floats() const;
  Queries queries(std::size_t sequence) const;
  std::vector<double> exact_output(int head) const;

  AttentionCase options_;
  std::vector<Tokens> lengths_;
  int copies_ = 0;
  std::vector<KvCopies> parts_;
  std::vector<std::uint16_t> query_elements_;
  std::vector<float> partials_;
  std::vector<std::vector<PageList>> lists_;
  std::vector<SequenceAttention> sequences_;
};

}  // namespace modalkv
