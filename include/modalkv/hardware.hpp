// A machine as the cost model sees it: one GPU, its host link, the host's memory, cores and disk.
// Every number keeps where it came from.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "modalkv/units.hpp"

namespace modalkv {

enum class Evidence : std::uint8_t { datasheet, measured, fitted, guess };

constexpr std::string_view name(Evidence evidence) {
  constexpr std::string_view names[] = {"datasheet", "measured", "fitted", "guess"};
  return names[static_cast<std::uint8_t>(evidence)];
}

/// A value, how well it is known, and who says so.
template <typename T>
struct Sourced {
  T value{};
  Evidence evidence = Evidence::guess;
  std::string source{};

  operator const T&() const { return value; }  // NOLINT: reads as its value
};

/// Sustained rate of copies made of descriptors of `descriptor_bytes` each.
struct LinkPoint {
  Bytes descriptor_bytes = 0;
  double bytes_per_s = 0;

  friend constexpr bool operator==(const LinkPoint&, const LinkPoint&) = default;
};

/// The link between GPU and host, each direction on its own.
struct LinkProfile {
  Sourced<double> h2d_bytes_per_s;  ///< pinned, large copies, one direction
  Sourced<double> d2h_bytes_per_s;
  /// Rates by contiguous piece, ascending, relative pieces between them interpolated in the
  /// logarithm of size; larger pieces run at the one-direction rate. May be empty: then that rate
  /// for all.
  Sourced<std::vector<LinkPoint>> piece_table;
  Sourced<double> descriptor_ns;  ///< submission cost of one descriptor
  Sourced<double>
      duplex_share;  ///< of its one-direction rate that each direction keeps when both run
};

/// Sustained rate of copies in contiguous pieces of `piece_bytes` (> 0) over one direction of a
/// link that reaches `peak_bytes_per_s`: between two points of the table interpolated in the
/// logarithm of the size.
inline double copy_bytes_per_s(const LinkProfile& link, double peak_bytes_per_s,
                               Bytes piece_bytes) {
  const std::vector<LinkPoint>& table = link.piece_table.value;
  const auto above = std::lower_bound(
      table.begin(), table.end(), piece_bytes,
      [](const LinkPoint& point, Bytes bytes) { return point.descriptor_bytes < bytes; });
  if (above == table.end()) return peak_bytes_per_s;
  if (above == table.begin()) return std::min(above->bytes_per_s, peak_bytes_per_s);
  const LinkPoint& below = *(above - 1);
  const auto log_ratio = [](Bytes a, Bytes b) {
    return std::log(static_cast<double>(a) / static_cast<double>(b));
  };
  const double position = log_ratio(piece_bytes, below.descriptor_bytes) /
                          log_ratio(above->descriptor_bytes, below.descriptor_bytes);
  return std::min(below.bytes_per_s + position * (above->bytes_per_s - below.bytes_per_s),
                  peak_bytes_per_s);
}

/// Achieved fractions of the datasheet rates.
struct GpuEfficiency {
  Sourced<double> gemm_memory;
  Sourced<double> gemm_flops;
  Sourced<double> attention_memory;
  Sourced<double> prefill_flops;
};

struct GpuProfile {
  Sourced<Bytes> memory_bytes;
  Sourced<double> memory_bytes_per_s;
  Sourced<double> flops_16bit;  ///< dense tensor FLOP/s, 16-bit operands
  GpuEfficiency efficiency;
  Sourced<double> attention_launch_ns;     ///< of one layer's decode attention
  Sourced<double> small_ops_ns_per_layer;  ///< norms, rotary, residuals, launches
  Sourced<double> small_ops_ns_per_token;
  Sourced<double> step_host_ns;   ///< scheduling, sampling, launches of a step
  Sourced<double> handover_ns;    ///< GPU to CPU or back, through a word in pinned memory
  Sourced<Bytes> reserved_bytes;  ///< context, graphs, libraries, fragmentation
};

struct NumaNode {
  Bytes memory_bytes = 0;
  double dram_bytes_per_s = 0;
  int cores = 0;
};

struct HostProfile {
  Sourced<std::vector<NumaNode>> numa_nodes;  ///< the first is the GPU's
  Sourced<double> pinnable_share;             ///< of a node's memory that modalkv may pin
  Sourced<double> attention_memory;           ///< fraction of DRAM rate that CPU attention reaches
};

struct DiskProfile {
  Sourced<Bytes> capacity_bytes;  ///< 0: no disk tier
  Sourced<double> read_bytes_per_s;
  Sourced<double> write_bytes_per_s;
  Sourced<double> latency_ns;
};

struct HardwareProfile {
  std::string name;
  GpuProfile gpu;
  LinkProfile link;
  HostProfile host;
  DiskProfile disk;
};

}  // namespace modalkv
