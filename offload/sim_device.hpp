// A device in virtual time: the same input gives the same completions, at the same nanosecond.
#pragma once

#include <random>
#include <vector>

#include "modalkv/hardware.hpp"
#include "offload/group_book.hpp"
#include "offload/sim_rates.hpp"

namespace modalkv {

struct SimOptions {
  /// Every duration is stretched by up to this share, at random: other interleavings.
  double jitter = 0;
  std::uint64_t seed = 1;
};

/// Each operation takes effect at its own virtual end, by kernels/effects.hpp, where all it touches
/// has memory; otherwise it only takes time. A wait that nothing can end moves the clock to its
/// deadline.
class SimDevice final : public Device {
 public:
  explicit SimDevice(const HardwareProfile& hardware, SimOptions options = {});
  ~SimDevice() override;

  std::span<const QueueInfo> queues() const override { return book_.queues(); }
  RegisteredSpace register_space(const SpaceInfo& info) override;
  Submitted submit(QueueId queue, std::span<const Op> ops, std::span<const Ticket> after) override;
  std::optional<Completion> next_completion(Nanos timeout_ns) override;
  Nanos now() const override { return now_ns_; }
  Submitted import_event(EngineEvent event) override { return book_.import_event(event); }
  Status export_event(Ticket ticket, EngineEvent event) override {
    return book_.export_event(ticket, event);
  }

 private:
  // A queue in virtual time.
  struct Lane {
    Nanos free_ns = 0;
    bool runs = false;
    std::size_t op = 0;  // of the group at the front
    Nanos next_ns = 0;   // its end
  };

  void start_fronts();
  void begin_op(std::size_t queue, Nanos at_ns);
  void end_op(std::size_t queue);
  void finish(std::size_t queue, Status status);
  bool opposed(QueueKind kind) const;
  Status perform_here(const Op& op) const;

  GroupBook book_;
  SimRates rates_;
  SimOptions options_;
  std::mt19937_64 random_;
  std::vector<Lane> lanes_;
  Nanos now_ns_ = 0;
};

}  // namespace modalkv
