// Pages of a few sizes in one space: slabs of equal size, each of one size class at a time.
//
// How much it can waste is bounded, without moving a page:
//   - a slab's tail, less than a page, is at most 1/16 of the slab (`slab_bytes_for`);
//   - a class takes a slab only when all its pages are in use, and gives one back with its last
//     page, so it never holds more slabs than the most pages that it had in use at once fill.
// What is read together can be kept together: lanes are classes of their own, so that pages which
// are allocated in one lane one after another are neighbours.
// Hence no page is refused while those most pages, each class rounded up to slabs, fit the space.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "modalkv/units.hpp"

namespace modalkv {

/// Smallest multiple of 2 MiB in which no class of pages (> 0 bytes) leaves more than 1/16 unused.
Bytes slab_bytes_for(std::span<const Bytes> page_bytes);

struct SlabStatistics {
  struct SizeClass {
    Bytes page_bytes = 0;
    std::int64_t pages_per_slab = 0;
    std::int64_t slabs = 0;
    std::int64_t used_pages = 0;
    std::int64_t most_used_pages = 0;  ///< at once, ever

    std::int64_t free_pages() const { return slabs * pages_per_slab - used_pages; }
  };
  Bytes slab_bytes = 0;
  Bytes capacity_bytes = 0;  ///< of whole slabs
  std::int64_t free_slabs = 0;
  std::vector<SizeClass> classes;  ///< ascending; of a size, one a lane

  Bytes used_bytes() const;
  /// Free, for pages of any class.
  Bytes free_bytes() const { return free_slabs * slab_bytes; }
  /// Free, for pages of the class that holds the slab only.
  Bytes stranded_bytes() const;
  /// Share of the slabs that are held which no page uses: stranded, or a tail.
  double fragmentation() const;
};

/// Hands out offsets; touches no memory. Time is bounded by the words of a slab's bitmap, and
/// nothing is allocated after construction. Not thread-safe.
class SlabAllocator {
 public:
  /// 1 to 16 distinct page sizes, multiples of 64 bytes that fit `slab_bytes` (a multiple of 64).
  /// Bookkeeping is reserved for `max_bytes`; no byte can be used before `grow`. Throws Error.
  SlabAllocator(std::vector<Bytes> page_bytes, Bytes slab_bytes, Bytes max_bytes, int lanes = 1);

  /// Whole slabs below `capacity_bytes` can be used from now on. What is not above the capacity at
  /// hand changes nothing; more than `max_bytes` is a bug.
  void grow(Bytes capacity_bytes);

  /// Offset of a page, a multiple of 64; nothing where no page is free. A size that is no class is
  /// a bug.
  std::optional<Bytes> allocate(Bytes page_bytes, int lane = 0);
  /// Pages that belong together, ascending in as few runs of neighbours as one slab after another
  /// gives. All of them or none: false leaves `offsets` as it was.
  [[nodiscard]] bool allocate(Bytes page_bytes, std::span<Bytes> offsets, int lane = 0);

  /// An offset that is not of a page in use is a bug: aborts.
  void release(Bytes offset);

  SlabStatistics statistics() const;
  Bytes slab_bytes() const { return slab_bytes_; }
  /// In slabs that no class holds.
  Bytes free_bytes() const { return free_slabs_ * slab_bytes_; }

 private:
  // Partial slabs of a class are listed by the logarithm of their free pages.
  static constexpr int kLists = 32;
  static constexpr std::int32_t kNone = -1;

  struct Slab {
    std::int32_t next = kNone, previous = kNone;  // in its list
    std::int32_t free_pages = 0;
    std::int32_t size_class = kNone;  // none: free
  };
  struct SizeClass {
    Bytes page_bytes = 0;
    std::int32_t pages_per_slab = 0;
    std::int64_t slabs = 0;
    std::int64_t used_pages = 0;
    std::int64_t most_used_pages = 0;
    std::uint32_t occupied_lists = 0;          // a bit a list
    std::array<std::int32_t, kLists> heads{};  // most recently changed first
  };
  struct Run {
    std::int32_t first = 0, pages = 0;
  };

  std::int32_t class_of(Bytes page_bytes, int lane) const;
  std::span<std::uint64_t> free_bits(std::int32_t slab);
  std::int32_t slab_for(std::int32_t size_class, std::int64_t pages);
  std::int32_t take_free_slab(std::int32_t size_class);
  void give_back(std::int32_t slab);
  Run best_run(std::int32_t slab, std::int32_t pages);
  void list(std::int32_t slab);
  void unlist(std::int32_t slab);

  const Bytes slab_bytes_, max_bytes_;
  const int lanes_;
  std::vector<SizeClass> classes_;  // ascending; of a size, one a lane
  std::size_t words_per_slab_ = 0;
  std::vector<Slab> slabs_;
  std::vector<std::uint64_t> free_bits_;  // words_per_slab_ a slab; a bit a page
  std::int32_t first_free_ = kNone;
  std::int64_t free_slabs_ = 0;
};

}  // namespace modalkv
