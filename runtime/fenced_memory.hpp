// Memory that is used again only once everything in flight that may touch it has ended.
#pragma once

#include <algorithm>
#include <deque>
#include <optional>
#include <utility>
#include <vector>

#include "offload/slab_allocator.hpp"
#include "runtime/group_ledger.hpp"

namespace modalkv {

/// Slots for pages in a part of a space.
class PagePool {
 public:
  /// Pages that are taken in one of `lanes` are neighbours where that can be.
  PagePool(const Address& where, std::vector<Bytes> page_bytes, Bytes slab_bytes, int lanes = 1)
      : where_(where), slots_(std::move(page_bytes), slab_bytes, where.bytes, lanes) {}

  /// As much from its beginning may be used from now on; nothing at first.
  void grow(Bytes bytes) {
    capacity_bytes_ = std::max(capacity_bytes_, std::min(bytes, where_.bytes));
    slots_.grow(capacity_bytes_);
  }

  std::optional<Address> take(Bytes bytes, int lane = 0) {
    const auto offset = slots_.allocate(bytes, lane);
    if (!offset) return {};
    used_bytes_ += bytes;
    return Address{where_.space, where_.offset + *offset, bytes};
  }
  /// Of a slot that nothing in flight uses.
  void put_back(const Address& slot) {
    slots_.release(slot.offset - where_.offset);
    used_bytes_ -= slot.bytes;
  }
  /// For when `fence` is passed; fences never go back.
  void give_back(const Address& slot, Fence fence) {
    retired_.push_back({fence, slot});
    retired_bytes_ += slot.bytes;
  }
  void recycle(Fence passed) {
    while (!retired_.empty() && retired_.front().fence <= passed) {
      put_back(retired_.front().slot);
      retired_bytes_ -= retired_.front().slot.bytes;
      retired_.pop_front();
    }
  }

  const Address& where() const { return where_; }
  Bytes used_bytes() const { return used_bytes_; }  ///< retired ones included
  Bytes retired_bytes() const { return retired_bytes_; }
  const SlabAllocator& slots() const { return slots_; }
  Bytes capacity_bytes() const { return capacity_bytes_; }

 private:
  struct Retired {
    Fence fence;
    Address slot;
  };

  Address where_;
  SlabAllocator slots_;
  std::deque<Retired> retired_;
  Bytes capacity_bytes_ = 0, used_bytes_ = 0, retired_bytes_ = 0;
};

/// Room for what one submission needs and the next one does not: tables, partial results. Taken in
/// order, and given back in order by fences.
class FencedRing {
 public:
  explicit FencedRing(const Address& where) : where_(where) {}

  /// Contiguous, aligned to 64 bytes. Nothing while too much is still in use.
  std::optional<Address> take(Bytes bytes) {
    const Bytes size = round_up(bytes, 64);
    Bytes begin = head_;
    if (begin + size > where_.bytes) begin = 0;  // what is left at the end is skipped
    const bool wraps = begin < head_;
    if (size > where_.bytes) return {};
    if (in_use(begin + size, wraps)) return {};
    head_ = begin + size;
    open_ = true;
    return Address{where_.space, where_.offset + begin, bytes};
  }
  /// What was taken since the last call is in use until `fence` is passed.
  void close(Fence fence) {
    if (open_) marks_.push_back({fence, head_});
    open_ = false;
  }
  /// Takes back what was taken since the last `close`: nothing was submitted that uses it.
  void cancel() {
    head_ = marks_.empty() ? tail_ : marks_.back().head;
    open_ = false;
  }
  void recycle(Fence passed) {
    while (!marks_.empty() && marks_.front().fence <= passed) {
      tail_ = marks_.front().head;
      marks_.pop_front();
    }
    if (marks_.empty() && !open_) head_ = tail_ = 0;
  }

  bool empty() const { return marks_.empty() && !open_; }

 private:
  struct Mark {
    Fence fence;
    Bytes head;  // behind the last byte
  };

  // In use is [tail, head), or where that has wrapped, [tail, end) and [0, head).
  bool in_use(Bytes end, bool wraps) const {
    if (empty()) return false;
    if (head_ > tail_) return wraps && end >= tail_;
    return wraps || end >= tail_;
  }

  Address where_;
  std::deque<Mark> marks_;
  Bytes head_ = 0, tail_ = 0;
  bool open_ = false;  // something was taken since the last close
};

}  // namespace modalkv
