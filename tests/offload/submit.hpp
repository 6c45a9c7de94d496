// Groups that a device has to take: anything else is a failure of the test.
#pragma once

#include <gtest/gtest.h>

#include <vector>

#include "offload/device.hpp"

namespace modalkv {

inline QueueId queue_of(const Device& device, QueueKind kind) {
  return find_queue(device, kind).value();
}

inline Ticket taken(const Submitted& submitted) {
  EXPECT_EQ(submitted.status, Status::ok);
  return submitted.ticket;
}

inline Ticket submit(Device& device, QueueKind kind, const std::vector<Op>& ops,
                     const std::vector<Ticket>& after = {}) {
  return taken(device.submit(queue_of(device, kind), ops, after));
}

}  // namespace modalkv
