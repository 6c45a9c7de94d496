// Keeping memory where it is, so that a device may copy from and to it.
#pragma once

#include <cstddef>
#include <span>
#include <string>

namespace modalkv {

/// One thread at a time may call it.
class MemoryPinner {
 public:
  virtual ~MemoryPinner() = default;

  /// Takes pages that are there already. Empty: pinned until `unpin` of the same bytes. Else one
  /// line why not: nothing is pinned, and no error of a driver is left behind for others to find.
  [[nodiscard]] virtual std::string pin(std::span<std::byte> memory) = 0;
  virtual void unpin(std::span<std::byte> memory) = 0;

 protected:
  MemoryPinner() = default;
  MemoryPinner(const MemoryPinner&) = default;
  MemoryPinner& operator=(const MemoryPinner&) = default;
};

/// By mlock: not swapped, as far as RLIMIT_MEMLOCK goes. For hosts without a GPU; a driver has to
/// register memory itself.
class MlockPinner final : public MemoryPinner {
 public:
  std::string pin(std::span<std::byte> memory) override;
  void unpin(std::span<std::byte> memory) override;
};

}  // namespace modalkv
