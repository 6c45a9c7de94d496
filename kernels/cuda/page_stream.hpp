// The pages of a list, 16 tokens of one KV head after another, from GPU memory into a warp's own
// shared memory by asynchronous copies.
//
// A stage holds `kTiles` tiles of 16 tokens: their K lines, their V lines (of each 16 channels all
// tiles side by side, so that depth goes on over tiles), and the metadata of both. Every byte that
// is copied is used, once: pieces of 16 bytes, K in one run, V in runs of a tile's depth.
#pragma once

#include "kernels/cuda/attend_task.hpp"
#include "kernels/cuda/status_word.hpp"
#include "kernels/cuda/tile_operands.hpp"

namespace modalkv::MODALKV_GPU {

/// One side of one head, from the begin of a page.
struct PageSide {
  Bytes lines, metadata;
  Bytes block_step;    ///< V: from 16 channels to the next 16
  int tile_lines;      ///< of 16 tokens; V: and 16 channels
  int metadata_bytes;  ///< of 16 tokens; 0 where there is none for tokens

  PageSide() = default;
  __device__ PageSide(const AttendShape& shape, int head, bool values) {
    const PageShape& page = shape.page;
    const ElementFormat& format = values ? page.format.value : page.format.key;
    const PageLayout layout(page);
    const int deep = word_elements(format);
    lines = values ? layout.value_lines(head) : layout.key_lines(head);
    metadata = values ? layout.value_metadata(head) : layout.key_metadata(head);
    block_step = page.tokens / deep * kLineBytes;
    tile_lines = (values ? kLineRows : page.head_dim) / deep;
    metadata_bytes =
        has_token_scales(format)
            ? static_cast<int>(kLineRows * modalkv::metadata_bytes(format, page.head_dim))
            : 0;
  }

  /// Metadata of the channels of a token's group, where it is per channel.
  __device__ Bytes channel_metadata(const PageShape& page, const ElementFormat& format,
                                    Tokens token) const {
    return metadata + token / group_elements(format, page) * page.head_dim *
                          (format.scale_bytes + format.zero_bytes);
  }
};

/// The addresses of a list's pages, 32 entries of its table at a time. Used by whole warps.
class PageTable {
 public:
  __device__ PageTable(const AttendLaunch& launch, const AttendTask& task)
      : task_(task),
        page_bytes_(launch.shape.page_bytes),
        pages_(static_cast<int>(divide_up(task.tokens, launch.shape.page.tokens))),
        status_(launch.status) {}

  /// nullptr where the table points out of the pages: the operation has failed then.
  __device__ const std::byte* operator[](int page) {
    if (page < first_ || page >= first_ + 32) {
      first_ = page;
      const int mine = page + static_cast<int>(threadIdx.x % 32);
      offset_ = mine < pages_ ? entry(mine) : 0;
    }
    const std::int64_t offset = __shfl_sync(~0u, offset_, page - first_);
    if (offset >= 0 && offset <= task_.pages_bytes - page_bytes_) {
      const std::byte* const address = task_.pages + offset;
      if (reinterpret_cast<std::uintptr_t>(address) % 16 == 0) return address;
    }
    if (threadIdx.x % 32 == 0) fail(status_, Status::rejected);
    return nullptr;
  }

 private:
  // The table may lie anywhere.
  __device__ std::int64_t entry(int page) const {
    const std::byte* at = task_.page_table + page * kPageTableEntryBytes;
    if (reinterpret_cast<std::uintptr_t>(at) % 8 == 0)
      return *reinterpret_cast<const std::int64_t*>(at);
    std::uint64_t value = 0;
    for (int byte = 0; byte < 8; ++byte) value |= static_cast<std::uint64_t>(at[byte]) << 8 * byte;
    return static_cast<std::int64_t>(value);
  }

  const AttendTask& task_;
  Bytes page_bytes_;
  int pages_;
  std::uint32_t* status_;
  int first_ = -32;
  std::int64_t offset_ = 0;
};

/// A tile's place.
struct TilePlace {
  const std::byte* page = nullptr;
  int in_page = 0;  ///< tiles of the page before it
};

/// Stages of a kernel whose sizes are `Tile`'s (attend_tile.hpp), for one warp: tiles [begin, end),
/// in order.
template <class Tile>
class PageStream {
 public:
  __device__ PageStream(const AttendLaunch& launch, const AttendTask& task, int head, int begin,
                        int end, std::byte* stages)
      : keys(launch.shape, head, false),
        values(launch.shape, head, true),
        table_(launch, task),
        tiles_of_page_(static_cast<int>(launch.shape.page.tokens / kLineRows)),
        blocks_(launch.shape.page.head_dim / 16),
        left_(end - begin),
        page_(begin / tiles_of_page_),
        in_page_(begin % tiles_of_page_),
        stages_(stages) {}

  __device__ std::byte* stage(int slot) const { return stages_ + slot * Tile::kStageBytes; }

  /// Begins to copy the next kTiles tiles, or those that are left. False: no such page.
  __device__ bool fetch(int slot, bool with_values) {
    std::byte* const to = stage(slot);
    before_ = last_;
    MODALKV_UNROLL
    for (int tile = 0; tile < Tile::kTiles; ++tile) {
      if (left_ <= 0) break;
      const std::byte* const from = table_[page_];
      if (from == nullptr) return false;
      last_ = {from, in_page_};
      fetch_keys(to, tile, from, in_page_);
      if (with_values) fetch_values(to, tile, from, in_page_);
      --left_;
      if (++in_page_ == tiles_of_page_) {
        ++page_;
        in_page_ = 0;
      }
    }
    return true;
  }

  /// Where the last tile lies of the stage before the one fetched last; for metadata that is per
  /// channel.
  __device__ const TilePlace& before() const { return before_; }
  /// Of the stage fetched last.
  __device__ const TilePlace& last() const { return last_; }

  PageSide keys, values;

 private:
  __device__ void fetch_keys(std::byte* to, int tile, const std::byte* page, int in_page) const {
    const int lines = keys.tile_lines;
    const std::byte* const from = page + keys.lines + Bytes{in_page} * lines * kLineBytes;
    std::byte* const there = to + Tile::kKeyLines + tile * Tile::kKeyTileBytes;
    for (int i = lane_.index; i < lines * 4; i += 32)
      simt::copy_async(there + piece_offset(i / 4, i % 4), from + i * 16);
    fetch_metadata(to + Tile::kKeyMetadata + tile * Tile::kKeyMetadataBytes,
                   page + keys.metadata + Bytes{in_page} * keys.metadata_bytes,
                   keys.metadata_bytes);
  }
  __device__ void fetch_values(std::byte* to, int tile, const std::byte* page, int in_page) const {
    const int lines = values.tile_lines, pieces = lines * 4;
    const std::byte* const from = page + values.lines + Bytes{in_page} * lines * kLineBytes;
    for (int i = lane_.index; i < blocks_ * pieces; i += 32) {
      const int block = i / pieces, piece = i % pieces;
      simt::copy_async(to + Tile::kValueLines + block * Tile::kValueBlockBytes +
                           piece_offset(tile * lines + piece / 4, piece % 4),
                       from + block * values.block_step + piece * 16);
    }
    fetch_metadata(to + Tile::kValueMetadata + tile * Tile::kValueMetadataBytes,
                   page + values.metadata + Bytes{in_page} * values.metadata_bytes,
                   values.metadata_bytes);
  }
  __device__ void fetch_metadata(std::byte* to, const std::byte* from, int bytes) const {
    for (int i = lane_.index * 16; i < bytes; i += 32 * 16) simt::copy_async(to + i, from + i);
  }

  PageTable table_;
  int tiles_of_page_, blocks_;
  int left_, page_, in_page_;  // of what is to be fetched
  TilePlace before_, last_;
  std::byte* stages_;
  Lane lane_;
};

}  // namespace modalkv::MODALKV_GPU
