#include "scheduler/perturb.hpp"

#include <initializer_list>

#include "scheduler/split_mix.hpp"

namespace modalkv {
namespace {

// SplitMix64: the same draws on every platform.
class Draws {
 public:
  explicit Draws(std::uint64_t seed) : state_(seed) {}
  double factor(double fraction) {
    state_ += 0x9e3779b97f4a7c15u;
    const double unit = static_cast<double>(split_mix(state_) >> 11) * 0x1p-53;
    return 1 - fraction + 2 * fraction * unit;
  }

 private:
  std::uint64_t state_;
};

}  // namespace

HardwareProfile perturbed(const HardwareProfile& hardware, double fraction, std::uint64_t seed) {
  HardwareProfile result = hardware;
  Draws draws(seed);
  GpuProfile& gpu = result.gpu;
  for (Sourced<double>* number :
       {&gpu.memory_bytes_per_s, &gpu.flops_16bit, &gpu.attention_launch_ns,
        &gpu.small_ops_ns_per_layer, &gpu.small_ops_ns_per_token, &gpu.step_host_ns,
        &gpu.handover_ns, &result.link.descriptor_ns})
    number->value *= draws.factor(fraction);
  const double link = draws.factor(fraction);
  result.link.h2d_bytes_per_s.value *= link;
  result.link.d2h_bytes_per_s.value *= link;
  for (LinkPoint& point : result.link.piece_table.value) point.bytes_per_s *= link;
  const double dram = draws.factor(fraction);
  for (NumaNode& node : result.host.numa_nodes.value) node.dram_bytes_per_s *= dram;
  DiskProfile& disk = result.disk;
  for (Sourced<double>* number :
       {&disk.read_bytes_per_s, &disk.write_bytes_per_s, &disk.latency_ns})
    number->value *= draws.factor(fraction);
  return result;
}

HardwareProfile scaled(const HardwareProfile& hardware, const RateFactors& factors) {
  HardwareProfile result = hardware;
  const auto scale = [](Sourced<double>& number, double factor) {
    number.value *= factor;
    if (factor != 1) number.evidence = Evidence::fitted;
  };
  GpuProfile& gpu = result.gpu;
  for (Sourced<double>* rate : {&gpu.memory_bytes_per_s, &gpu.flops_16bit})
    scale(*rate, factors.gpu);
  for (Sourced<double>* latency :
       {&gpu.attention_launch_ns, &gpu.small_ops_ns_per_layer, &gpu.small_ops_ns_per_token,
        &gpu.step_host_ns, &gpu.handover_ns})
    scale(*latency, 1 / factors.gpu);
  scale(result.link.h2d_bytes_per_s, factors.link);
  scale(result.link.d2h_bytes_per_s, factors.link);
  scale(result.link.descriptor_ns, 1 / factors.link);
  for (LinkPoint& point : result.link.piece_table.value) point.bytes_per_s *= factors.link;
  for (NumaNode& node : result.host.numa_nodes.value) node.dram_bytes_per_s *= factors.host;
  return result;
}

}  // namespace modalkv
