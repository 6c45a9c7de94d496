// A trace in the Chrome format, which Perfetto opens: a track a queue.
#pragma once

#include <span>
#include <string>

#include "offload/tracing_device.hpp"

namespace modalkv {

/// `groups` as TracingDevice gives them. A slice is a group, from its estimated begin to its end;
/// its arguments say for which step and layer, how much, and how long it had been submitted.
std::string trace_json(std::span<const QueueInfo> queues, std::span<const TracedGroup> groups);

}  // namespace modalkv
