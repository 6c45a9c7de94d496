#include "runtime/token_layout.hpp"

#include <algorithm>
#include <limits>

namespace modalkv {

TokenLayout::TokenLayout(std::span<const Segment> segments, Tokens own_page_tokens,
                         Tokens visual_page_tokens, bool promote_first)
    : own_page_tokens_(own_page_tokens),
      visual_page_tokens_(visual_page_tokens),
      promote_first_(promote_first) {
  Tokens token = 0, own = 0, blocks = 0;
  for (const Segment& segment : segments) {
    const bool visual = is_visual(segment.token_class);
    spans_.push_back({token, token + segment.tokens, visual, segment.floor == PrecisionFloor::high,
                      own, blocks});
    token += segment.tokens;
    if (visual) {
      blocks += divide_up(segment.tokens, visual_page_tokens);
      own += promote_first ? 1 : 0;
    } else {
      own += segment.tokens;
    }
  }
  spans_.push_back({token, std::numeric_limits<Tokens>::max(), false, false, own, blocks});
}

const TokenLayout::Span& TokenLayout::span_of(Tokens token) const {
  if (token >= spans_.back().begin) return spans_.back();  // as all that is decoded
  const auto behind = std::upper_bound(spans_.begin(), spans_.end(), token,
                                       [](Tokens t, const Span& span) { return t < span.end; });
  return *behind;
}

const TokenLayout::Span& TokenLayout::span_of_block(Tokens block) const {
  // The last visual span that begins at or before it: text begins where the next one does.
  auto span = std::upper_bound(spans_.begin(), spans_.end(), block,
                               [](Tokens b, const Span& s) { return b < s.first_block; });
  while (!(--span)->visual && span != spans_.begin()) {
  }
  return *span;
}

LayoutExtent TokenLayout::extent(Tokens tokens) const {
  const Span& span = span_of(tokens);
  const Tokens in_span = tokens - span.begin;
  LayoutExtent extent{.own_tokens = span.own_begin,
                      .visual_blocks = span.first_block,
                      .last_visual_tokens = visual_page_tokens_};
  if (!span.visual) {
    extent.own_tokens += in_span;
  } else if (in_span > 0) {
    extent.own_tokens += promote_first_ ? 1 : 0;
    extent.visual_blocks += divide_up(in_span, visual_page_tokens_);
    extent.last_visual_tokens = (in_span - 1) % visual_page_tokens_ + 1;
  }
  extent.own_blocks = divide_up(extent.own_tokens, own_page_tokens_);
  return extent;
}

Tokens TokenLayout::own_tokens(Tokens tokens) const {
  return extent(tokens).own_tokens;
}

Tokens TokenLayout::visual_blocks(Tokens tokens) const {
  return extent(tokens).visual_blocks;
}

Tokens TokenLayout::visual_tokens_of(Tokens tokens) const {
  Tokens visual = 0;
  for (const Span& span : spans_)
    if (span.visual && span.begin < tokens) visual += std::min(span.end, tokens) - span.begin;
  return visual;
}

Tokens TokenLayout::token_of_own(Tokens index) const {
  // The last span that begins at or before it: one without own tokens has a successor there.
  auto span = std::upper_bound(spans_.begin(), spans_.end(), index,
                               [](Tokens i, const Span& s) { return i < s.own_begin; });
  --span;
  return span->visual ? span->begin : span->begin + index - span->own_begin;
}

void TokenLayout::own_positions(Tokens index, std::span<std::int32_t> to) const {
  for (std::size_t i = 0; i < to.size();) {
    const Tokens first = index + static_cast<Tokens>(i);
    const Tokens token = token_of_own(first);
    const Span& span = span_of(token);
    const auto run = span.visual ? std::size_t{1}
                                 : std::min(to.size() - i, static_cast<std::size_t>(std::min(
                                                               span.end - token, Tokens{1} << 30)));
    for (std::size_t j = 0; j < run; ++j)
      to[i + j] = static_cast<std::int32_t>(token + static_cast<Tokens>(j));
    i += run;
  }
}

Tokens TokenLayout::visual_first_token(Tokens block) const {
  const Span& span = span_of_block(block);
  return span.begin + (block - span.first_block) * visual_page_tokens_;
}

Tokens TokenLayout::visual_tokens(Tokens block) const {
  return std::min(visual_page_tokens_, span_of_block(block).end - visual_first_token(block));
}

std::vector<std::uint64_t> TokenLayout::hidden(Tokens block) const {
  std::vector<std::uint64_t> words(static_cast<std::size_t>(visual_page_tokens_ / 64));
  for (Tokens token = visual_tokens(block); token < visual_page_tokens_; ++token)
    words[static_cast<std::size_t>(token / 64)] |= std::uint64_t{1} << token % 64;
  if (promote_first_ && span_of_block(block).first_block == block) words[0] |= 1;
  return words;
}

bool TokenLayout::holds_high(Strand strand, Tokens block) const {
  if (strand == Strand::visual) return span_of_block(block).high;
  const Tokens begin = block * own_page_tokens_, end = begin + own_page_tokens_;
  return std::any_of(spans_.begin(), spans_.end(), [&](const Span& span) {
    if (!span.high || span.visual || span.own_begin >= end) return false;
    return span.own_begin + (span.end - span.begin) > begin;
  });
}

}  // namespace modalkv
