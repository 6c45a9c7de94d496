// A page that is still being filled: rows of 16 bits go in as the engine produces them, and closing
// gives it its trailer. Only 16-bit pages can be open: what groups of elements share is not known
// before the last of them.
#pragma once

#include <cstddef>
#include <span>

#include "kernels/page_codec.hpp"

namespace modalkv {

/// Writes rows [0, tokens) of K and V to tokens [first, first + tokens) of a 16-bit page. With
/// `first` 0 the page is opened: the rest of it becomes zeros. `rejected`, with the first row to
/// blame named, where an element is not finite or beyond the page's format; nothing is written
/// then. Allocates nothing.
EncodeResult append_rows(const PageShape& shape, const Rows& keys, const Rows& values, Tokens first,
                         Tokens tokens, std::span<std::byte> page);

/// Writes the trailer, so that the page is, byte by byte, what encode_page makes of the same rows.
/// Tokens from `trailer.tokens` on become zeros: a page can be cut back.
void close_page(const PageShape& shape, const PageTrailer& trailer, std::span<std::byte> page);

}  // namespace modalkv
