// Where the tokens of a sequence lie in its two strands of blocks.
//
// Text lies in the own strand, packed whatever is between it. An image's tokens lie in the visual
// strand, in blocks of that image alone, so that they can be shared; those that the sequence keeps
// in high precision lie in the own strand too and are hidden in the visual one.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <vector>

#include "modalkv/token.hpp"
#include "runtime/block_store.hpp"

namespace modalkv {

/// Consecutive tokens of a sequence within a block.
struct LayoutPiece {
  Strand strand = Strand::own;
  Tokens token = 0;  ///< the first, in the sequence
  Tokens tokens = 0;
  Tokens block = 0;  ///< in the strand
  Tokens at = 0;     ///< of the first, in the block
};

/// What of the two strands the first tokens of a sequence fill.
struct LayoutExtent {
  Tokens own_tokens = 0;
  Tokens own_blocks = 0, visual_blocks = 0;
  Tokens last_visual_tokens = 0;  ///< in the last visual block: of its page when it is full

  Tokens blocks(Strand strand) const { return strand == Strand::own ? own_blocks : visual_blocks; }
};

class TokenLayout {
 public:
  /// Pages of visual blocks have a multiple of 64 tokens. With `promote_first` the first token of
  /// each image is kept in the own strand as well. Behind the segments there is text without end.
  TokenLayout(std::span<const Segment> segments, Tokens own_page_tokens, Tokens visual_page_tokens,
              bool promote_first);

  /// Calls `use(piece)` for the tokens [begin, end), in order within each strand.
  template <typename Use>
  void for_each_piece(Tokens begin, Tokens end, Use&& use) const;

  /// Of the first `tokens` tokens.
  LayoutExtent extent(Tokens tokens) const;
  Tokens own_tokens(Tokens tokens) const;
  Tokens visual_blocks(Tokens tokens) const;
  Tokens visual_tokens_of(Tokens tokens) const;

  /// The sequence's token that is the `index`-th of the own strand.
  Tokens token_of_own(Tokens index) const;
  /// The same for `to.size()` tokens from `index` on.
  void own_positions(Tokens index, std::span<std::int32_t> to) const;

  Tokens page_tokens(Strand strand) const {
    return strand == Strand::own ? own_page_tokens_ : visual_page_tokens_;
  }
  /// The first token of a visual block, and how many it has when full.
  Tokens visual_first_token(Tokens block) const;
  Tokens visual_tokens(Tokens block) const;
  /// A bit a token of a visual block's page: kept elsewhere, or behind the end of the image.
  std::vector<std::uint64_t> hidden(Tokens block) const;
  /// Whether a block has a token that must not be compressed.
  bool holds_high(Strand strand, Tokens block) const;

 private:
  struct Span {
    Tokens begin = 0, end = 0;
    bool visual = false;
    bool high = false;       // never compressed
    Tokens own_begin = 0;    // of its first own token
    Tokens first_block = 0;  // visual
  };

  const Span& span_of(Tokens token) const;
  const Span& span_of_block(Tokens block) const;

  Tokens own_page_tokens_, visual_page_tokens_;
  bool promote_first_;
  std::vector<Span> spans_;
};

template <typename Use>
void TokenLayout::for_each_piece(Tokens begin, Tokens end, Use&& use) const {
  const auto in_blocks = [&](Strand strand, Tokens token, Tokens tokens, Tokens first_block,
                             Tokens index) {
    const Tokens page = page_tokens(strand);
    while (tokens > 0) {
      const Tokens at = index % page, now = std::min(tokens, page - at);
      use(LayoutPiece{strand, token, now, first_block + index / page, at});
      token += now, index += now, tokens -= now;
    }
  };
  for (auto at = &span_of(begin); at != spans_.data() + spans_.size(); ++at) {
    const Span& span = *at;
    if (span.begin >= end) break;
    const Tokens from = std::max(begin, span.begin), to = std::min(end, span.end);
    if (from >= to) continue;
    const Tokens index = from - span.begin;
    if (!span.visual) {
      in_blocks(Strand::own, from, to - from, 0, span.own_begin + index);
      continue;
    }
    if (promote_first_ && index == 0) in_blocks(Strand::own, from, 1, 0, span.own_begin);
    in_blocks(Strand::visual, from, to - from, span.first_block, index);
  }
}

}  // namespace modalkv
