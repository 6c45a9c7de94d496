// Copies of a group, for a driver that does them in no order: neighbours become one, and a copy
// that must come after another of them begins a new batch.
#pragma once

#include <algorithm>
#include <cstddef>
#include <span>
#include <vector>

#include "offload/cuda/gpu_driver.hpp"

namespace modalkv {

class CopyRun {
 public:
  /// Joined copies do not cross multiples of this from the begin of a space, so that none spans
  /// two registrations of pinned memory, which begin there. Long enough for any link.
  static constexpr Bytes kJoinedBytes = kMiB;

  explicit CopyRun(std::size_t max_copies) {
    copies_.reserve(max_copies);
    written_.reserve(max_copies);
    read_.reserve(max_copies);
  }

  bool empty() const { return copies_.empty(); }
  std::span<const GpuCopy> copies() const { return copies_; }

  /// Whether it may be done before, after or beside all that was added.
  bool independent(const GpuCopy& copy) const {
    const Range from = range(copy.from, copy.bytes), to = range(copy.to, copy.bytes);
    return !meets(written_, from) && !meets(written_, to) && !meets(read_, to);
  }

  /// `joins`: may be one copy with the one before where the bytes follow each other.
  void add(const GpuCopy& copy, bool joins) {
    insert(written_, range(copy.to, copy.bytes));
    insert(read_, range(copy.from, copy.bytes));
    if (joins && !copies_.empty()) {
      GpuCopy& last = copies_.back();
      if (last.to + last.bytes == copy.to && last.from + last.bytes == copy.from) {
        last.bytes += copy.bytes;
        return;
      }
    }
    copies_.push_back(copy);
  }

  void clear() {
    copies_.clear();
    written_.clear();
    read_.clear();
  }

 private:
  // Ranges that are sorted by their begin. Those written are apart; those read may overlap, and are
  // then one.
  struct Range {
    const std::byte* begin = nullptr;
    const std::byte* end = nullptr;
  };
  static Range range(const std::byte* begin, std::size_t bytes) { return {begin, begin + bytes}; }

  static bool meets(const std::vector<Range>& ranges, const Range& range) {
    const auto after =
        std::upper_bound(ranges.begin(), ranges.end(), range.end - 1,
                         [](const std::byte* at, const Range& r) { return at < r.begin; });
    return after != ranges.begin() && std::prev(after)->end > range.begin;
  }

  static void insert(std::vector<Range>& ranges, Range range) {
    auto first = std::lower_bound(ranges.begin(), ranges.end(), range.begin,
                                  [](const Range& r, const std::byte* at) { return r.end < at; });
    auto last = first;
    for (; last != ranges.end() && last->begin <= range.end; ++last) {
      range.begin = std::min(range.begin, last->begin);
      range.end = std::max(range.end, last->end);
    }
    if (first == last) {
      ranges.insert(first, range);
    } else {
      *first = range;
      ranges.erase(first + 1, last);
    }
  }

  std::vector<GpuCopy> copies_;
  std::vector<Range> written_, read_;
};

}  // namespace modalkv
