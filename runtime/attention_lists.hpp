// What a batch attends to at one layer, as lists of pages: of one sequence, strand and format each,
// and of one place; and what of it has to be brought to the device, in pieces that fit a staging
// slot.
#pragma once

#include <vector>

#include "runtime/block_store.hpp"

namespace modalkv {

enum class PagePlace : std::uint8_t { resident, staged, cpu };

struct ListedPage {
  BlockId id{};
  Address page{};       ///< as it lies; staged: on the host
  Bytes staged_at = 0;  ///< in its staging slot
  const Block* block = nullptr;
  Tokens block_index = 0;  ///< in its strand
};

struct ListedPages {
  int request = 0;
  Strand strand = Strand::own;
  bool low = false;
  PagePlace place = PagePlace::resident;
  int chunk = 0;      ///< staged: which one
  Tokens tokens = 0;  ///< all pages but the last are full
  bool hides = false;
  std::vector<ListedPage> pages;
  // What its operation needs.
  Address table{}, positions{}, hidden{}, partials{};
  Address device_partials{};  ///< cpu: where its partials are taken
};

/// A page to be staged, as it is now: two that are equal have the same bytes. An address alone does
/// not say so: slots are used again.
struct StreamedPage {
  BlockId id{};
  Ticket last_write{};  ///< of the block
  Address from{};
  int chunk = 0;
  Bytes at = 0;  ///< in the staging slot

  friend constexpr bool operator==(const StreamedPage&, const StreamedPage&) = default;
};

/// Whether one copy can bring both, `before` first.
constexpr bool follows(const StreamedPage& page, const StreamedPage& before) {
  return page.chunk == before.chunk && page.from.space == before.from.space &&
         page.from.offset == before.from.offset + before.from.bytes &&
         page.at == before.at + before.from.bytes;
}

/// Keeps its memory from step to step.
class AttentionLists {
 public:
  void begin(Bytes chunk_bytes) {
    lists_used_ = 0;
    chunk_bytes_ = chunk_bytes;
    chunk_used_ = 0;
    chunks_ = 0;
  }
  void begin_request(int request) {
    request_ = request;
    open_ = {};
  }
  /// Adds a page with `tokens` tokens in use to the list where it belongs.
  void add(Strand strand, bool low, PagePlace place, ListedPage page, Tokens tokens) {
    if (place == PagePlace::staged) {
      if (chunks_ == 0 || chunk_used_ + page.page.bytes > chunk_bytes_) {
        ++chunks_;
        chunk_used_ = 0;
      }
      page.staged_at = chunk_used_;
      chunk_used_ += page.page.bytes;
    }
    std::size_t& open =
        open_[static_cast<std::size_t>(strand)][low ? 1 : 0][static_cast<std::size_t>(place)];
    const int chunk = place == PagePlace::staged ? chunks_ - 1 : 0;
    if (open == 0 || (*this)[open - 1].chunk != chunk) {
      open = ++lists_used_;
      if (lists_.size() < open) lists_.emplace_back();
      ListedPages& list = lists_[open - 1];
      list.pages.clear();
      list.request = request_, list.strand = strand, list.low = low, list.place = place;
      list.chunk = chunk, list.tokens = 0, list.hides = false;
    }
    ListedPages& list = lists_[open - 1];
    list.tokens += tokens;
    if (!page.block->hidden.empty()) list.hides = true;
    list.pages.push_back(page);
  }

  std::size_t size() const { return lists_used_; }
  ListedPages& operator[](std::size_t i) { return lists_[i]; }
  int chunks() const { return chunks_; }

 private:
  std::vector<ListedPages> lists_;
  std::size_t lists_used_ = 0;
  std::array<std::array<std::array<std::size_t, 3>, 2>, kStrands> open_{};  // index + 1
  int request_ = 0;
  Bytes chunk_bytes_ = 0, chunk_used_ = 0;
  int chunks_ = 0;
};

}  // namespace modalkv
