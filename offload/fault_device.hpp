// A decorator that fails on purpose: a seed decides which submission meets which fault.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <random>
#include <set>
#include <vector>

#include "offload/forwarding_device.hpp"

namespace modalkv {

/// Chances of a submission (in [0, 1], adding up to at most 1) to meet a fault.
struct FaultPlan {
  std::uint64_t seed = 1;
  double busy = 0;     ///< refused although there is room
  double fail = 0;     ///< ends in io_error; its destinations hold garbage
  double corrupt = 0;  ///< ends well, but the last byte of a destination is wrong
  double overrun = 0;  ///< ends well, but the byte behind a destination was written too
  double late = 0;     ///< completes, but its completion is reported after later ones
  double lost = 0;     ///< completes, but nobody is told
  /// Whether a submission may meet one at all; asked once each. Empty: all may.
  std::function<bool(QueueId queue, std::span<const Op> ops)> strikes{};
};

struct FaultCounts {
  std::uint64_t busy = 0, fail = 0, corrupt = 0, overrun = 0, late = 0, lost = 0;
};

class FaultDevice final : public ForwardingDevice {
 public:
  FaultDevice(Device& inner, const FaultPlan& plan);

  /// What has been injected so far.
  const FaultCounts& injected() const { return injected_; }

  RegisteredSpace register_space(const SpaceInfo& info) override;
  Submitted submit(QueueId queue, std::span<const Op> ops, std::span<const Ticket> after) override;
  std::optional<Completion> next_completion(Nanos timeout_ns) override;

 private:
  enum class Fault : std::uint8_t { none, busy, fail, corrupt, overrun, late, lost };
  static constexpr std::size_t kRememberedFailures = 1024;

  Fault draw();
  bool failed(Ticket ticket) const;
  void fail(Ticket ticket, Status status);
  std::vector<Op> garbage(std::span<const Op> ops) const;
  std::vector<Op> spoiled(std::span<const Op> ops, Fault fault) const;

  FaultPlan plan_;
  std::mt19937_64 random_;
  std::vector<Bytes> space_bytes_;
  std::deque<Completion> failures_;  // decided when submitted: which ticket, with which status
  std::set<std::uint64_t> late_, lost_;
  std::deque<Completion> withheld_;
  FaultCounts injected_;
};

}  // namespace modalkv
