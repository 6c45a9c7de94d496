#include "offload/sim_rates.hpp"

#include <algorithm>
#include <cmath>

namespace modalkv {
namespace {

bool on_host(QueueKind kind) {
  return kind == QueueKind::host || kind == QueueKind::disk;
}

}  // namespace

SimRates::SimRates(const HardwareProfile& hardware) : hardware_(hardware) {
  double dram = 0;
  for (const NumaNode& node : hardware.host.numa_nodes.value) dram += node.dram_bytes_per_s;
  const double reachable = dram * hardware.host.attention_memory;
  const double beside_link = std::max(reachable - hardware.link.h2d_bytes_per_s, reachable / 4);
  host_share_ = dram > 0 ? beside_link / dram : 1;
}

double SimRates::copy_ns(const LinkProfile& link, double bytes_per_s, Bytes bytes, bool first,
                         bool opposed) const {
  double transfer_ns =
      1e9 * static_cast<double>(bytes) / copy_bytes_per_s(link, bytes_per_s, bytes);
  if (opposed) transfer_ns /= link.duplex_share;
  // Submission runs ahead of the copies: the slower of the two decides.
  return std::max(transfer_ns, link.descriptor_ns.value) + (first ? link.descriptor_ns.value : 0);
}

Nanos SimRates::duration_ns(const QueueInfo& queue, const Op& op, bool first, bool opposed) const {
  if (const auto* work = std::get_if<EngineWork>(&op)) return work->duration_ns;
  const OpCost asked = cost(op);
  const auto bytes = static_cast<double>(asked.read_bytes + asked.written_bytes);
  const GpuProfile& gpu = hardware_.gpu;
  const auto ns = [&]() -> double {
    switch (queue.kind) {
      case QueueKind::h2d:
        return copy_ns(hardware_.link, hardware_.link.h2d_bytes_per_s, asked.written_bytes, first,
                       opposed);
      case QueueKind::d2h:
        return copy_ns(hardware_.link, hardware_.link.d2h_bytes_per_s, asked.written_bytes, first,
                       opposed);
      case QueueKind::compute:
        return 1e9 * bytes / (gpu.memory_bytes_per_s * gpu.efficiency.attention_memory);
      case QueueKind::host: {
        const auto& nodes = hardware_.host.numa_nodes.value;
        const auto node = static_cast<std::size_t>(queue.numa_node);
        return node < nodes.size() ? 1e9 * bytes / (nodes[node].dram_bytes_per_s * host_share_) : 0;
      }
      case QueueKind::disk:
        return hardware_.disk.latency_ns +
               1e9 * static_cast<double>(asked.written_bytes) /
                   std::min(hardware_.disk.read_bytes_per_s, hardware_.disk.write_bytes_per_s);
    }
    return 0;
  }();
  return static_cast<Nanos>(ns + 0.5);
}

Nanos SimRates::handover_ns(QueueKind from, QueueKind to) const {
  return on_host(from) == on_host(to) ? 0 : static_cast<Nanos>(hardware_.gpu.handover_ns + 0.5);
}

}  // namespace modalkv
