// The ring of device memory that streamed pages land in on their way to the attention that reads
// them. Slots are filled in turn; one is filled again after its last reader.
#pragma once

#include <algorithm>
#include <vector>

#include "offload/device.hpp"

namespace modalkv {

class StagingRing {
 public:
  StagingRing(const Address& where, int slots) {
    const Bytes bytes = where.bytes / slots / kPageAlignmentBytes * kPageAlignmentBytes;
    for (int i = 0; i < slots; ++i)
      slots_.push_back({{where.space, where.offset + i * bytes, bytes}, {}, false});
  }

  struct Slot {
    Address where{};
    Ticket last_reader{};  ///< copies into it come after
    bool waits = false;    ///< filled ahead and not read yet
    bool doomed = false;   ///< what comes after its last reader would be cancelled
  };

  Bytes slot_bytes() const { return slots_.front().where.bytes; }
  int slots() const { return static_cast<int>(slots_.size()); }
  /// Slots in a row, from the next one on, that hold nothing that waits.
  int free_slots() const {
    int free = 0;
    while (free < slots() && !slots_[index(next_ + free)].waits) ++free;
    return free;
  }
  /// The next one; what waits in it is lost.
  int take() {
    const int slot = static_cast<int>(index(next_));
    next_ = static_cast<int>(index(next_ + 1));
    return slot;
  }
  /// A group has ended: nothing has to wait for it any more.
  void ended(Ticket group) {
    for (Slot& slot : slots_)
      if (slot.last_reader == group) slot.last_reader = {}, slot.doomed = false;
  }
  /// A group has failed. Readers in flight may come after it and will be cancelled, and so would
  /// all that follows them, one after another: nothing may before they have ended.
  void failed() {
    for (Slot& slot : slots_) slot.doomed = slot.last_reader != Ticket{};
  }
  bool is_doomed() const {
    return std::any_of(slots_.begin(), slots_.end(), [](const Slot& slot) { return slot.doomed; });
  }
  /// Gives back the latest `count` that were taken.
  void untake(int count) { next_ = static_cast<int>(index(next_ + slots() - count)); }
  Slot& operator[](int slot) { return slots_[static_cast<std::size_t>(slot)]; }

 private:
  std::size_t index(int slot) const { return static_cast<std::size_t>(slot % slots()); }

  std::vector<Slot> slots_;
  int next_ = 0;
};

}  // namespace modalkv
