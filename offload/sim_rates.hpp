// How long an operation takes on a machine, from its profile alone.
#pragma once

#include "modalkv/hardware.hpp"
#include "offload/device.hpp"

namespace modalkv {

class SimRates {
 public:
  explicit SimRates(const HardwareProfile& hardware);

  /// `opposed`: the other direction of the link is busy. `first`: of its group, so that the cost of
  /// submitting it is not hidden behind the copy before.
  Nanos duration_ns(const QueueInfo& queue, const Op& op, bool first, bool opposed) const;
  /// From a GPU queue to a host queue or back.
  Nanos handover_ns(QueueKind from, QueueKind to) const;

 private:
  double copy_ns(const LinkProfile& link, double bytes_per_s, Bytes bytes, bool first,
                 bool opposed) const;

  HardwareProfile hardware_;
  double host_share_ = 1;  // of DRAM bandwidth that CPU attention gets beside a busy link
};

}  // namespace modalkv
