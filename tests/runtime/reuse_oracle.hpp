// Where reuse of a prompt may end, counted token by token.
#pragma once

#include <span>

#include "modalkv/token.hpp"

namespace modalkv {

/// The last such place at or before `most_tokens`; 0: there is none. Of an image that may be
/// compressed the first token lies with the text.
inline Tokens last_reuse_end(std::span<const Segment> prompt, Tokens own_page_tokens,
                             Tokens most_tokens) {
  Tokens last = 0, tokens = 0, own_tokens = 0;
  for (const Segment& segment : prompt)
    for (Tokens nth = 1; nth <= segment.tokens; ++nth) {
      const bool visual = is_visual(segment.token_class);
      ++tokens;
      own_tokens += visual && nth > 1 ? 0 : 1;
      const bool ends = visual ? nth == segment.tokens : own_tokens % own_page_tokens == 0;
      if (ends && tokens <= most_tokens) last = tokens;
    }
  return last;
}

}  // namespace modalkv
