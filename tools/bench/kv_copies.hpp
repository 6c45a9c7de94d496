// The KV of a batch as pages, several times in memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "kernels/attention.hpp"
#include "tools/bench/huge_buffer.hpp"

namespace modalkv {

/// Pages of one shape for sequences of given lengths. A few pages are encoded from random K and V,
/// the others are copies of them at addresses of their own: what is read is real, and a large cache
/// is made in seconds.
class KvCopies {
 public:
  KvCopies(const PageShape& shape, NumberFormat input, std::span<const Tokens> lengths, int copies,
           std::uint64_t seed);

  /// Bytes of so many copies.
  static Bytes bytes(const PageShape& shape, std::span<const Tokens> lengths, int copies);

  /// What is kept beside them to check results with.
  static Bytes reference_bytes(const PageShape& shape, std::span<const Tokens> lengths);

  /// Of a sequence, as long as this object lives.
  PageList list(int copy, std::size_t sequence) const;

  /// What attention has to read of one copy: payload and metadata of the tokens, by whole tiles.
  Bytes bytes_read() const { return bytes_read_; }
  std::span<const std::byte> memory() const { return memory_.bytes(); }
  std::size_t distinct_pages() const { return keys_.size(); }

  /// The decoded K and V [head_dim] of a token of a sequence, whichever copy.
  std::span<const float> key(std::size_t sequence, Tokens token, int head) const {
    return decoded(keys_, sequence, token, head);
  }
  std::span<const float> value(std::size_t sequence, Tokens token, int head) const {
    return decoded(values_, sequence, token, head);
  }

 private:
  using Decoded = std::vector<std::vector<float>>;  // of each distinct page

  std::span<const float> decoded(const Decoded& pages, std::size_t sequence, Tokens token,
                                 int head) const;

  PageShape shape_;
  std::vector<Tokens> lengths_;
  std::vector<std::size_t> first_page_;  // of each sequence; then how many pages there are
  Bytes bytes_read_ = 0;
  HugeBuffer memory_;
  std::vector<const std::byte*> pages_;  // of all copies
  Decoded keys_, values_;
};

}  // namespace modalkv
