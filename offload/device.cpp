#include "offload/device.hpp"

namespace modalkv {

std::optional<QueueId> find_queue(const Device& device, QueueKind kind, int numa_node) {
  const auto queues = device.queues();
  for (std::size_t q = 0; q < queues.size(); ++q)
    if (queues[q].kind == kind && (kind != QueueKind::host || queues[q].numa_node == numa_node))
      return QueueId{static_cast<std::uint8_t>(q)};
  return std::nullopt;
}

std::vector<QueueInfo> standard_queues(int numa_nodes, int host_threads) {
  std::vector<QueueInfo> queues{{.kind = QueueKind::h2d},
                                {.kind = QueueKind::d2h},
                                {.kind = QueueKind::compute},
                                {.kind = QueueKind::disk}};
  for (int node = 0; node < numa_nodes; ++node)
    queues.push_back({.kind = QueueKind::host, .numa_node = node, .threads = host_threads});
  return queues;
}

}  // namespace modalkv
