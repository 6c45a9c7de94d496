// Every device under one interface of the tests: a new backend is one struct here.
#pragma once

#include <cstring>
#include <memory>
#include <vector>

#include "offload/checking_device.hpp"
#include "offload/cuda/cuda_device.hpp"
#include "offload/fault_device.hpp"
#include "offload/host_device.hpp"
#include "offload/sim_device.hpp"
#include "offload/tracing_device.hpp"
#include "tests/offload/cuda/emulated_gpu.hpp"

namespace modalkv {

inline HardwareProfile small_machine() {
  HardwareProfile machine;
  machine.name = "small-machine";
  machine.gpu.memory_bytes = {24 * kGiB};
  machine.gpu.memory_bytes_per_s = {1e12};
  machine.gpu.flops_16bit = {1e14};
  machine.gpu.efficiency = {{0.9}, {0.9}, {0.8}, {0.7}};
  machine.gpu.handover_ns = {4'000};
  machine.link.h2d_bytes_per_s = {25e9};
  machine.link.d2h_bytes_per_s = {20e9};
  machine.link.piece_table = {{{4 * kKiB, 2e9}, {64 * kKiB, 12e9}, {kMiB, 25e9}}};
  machine.link.descriptor_ns = {1'000};
  machine.link.duplex_share = {0.8};
  machine.host.numa_nodes = {{{32 * kGiB, 50e9, 8}, {32 * kGiB, 50e9, 8}}};
  machine.host.pinnable_share = {0.5};
  machine.host.attention_memory = {0.8};
  machine.disk.capacity_bytes = {kGiB};
  machine.disk.read_bytes_per_s = {3e9};
  machine.disk.write_bytes_per_s = {2e9};
  machine.disk.latency_ns = {80'000};
  return machine;
}

struct Sim {
  static constexpr bool kVirtualTime = true;
  static constexpr bool kRunsAhead = false;
  SimDevice device{small_machine()};
};

struct JitteredSim {
  static constexpr bool kVirtualTime = true;
  static constexpr bool kRunsAhead = false;
  SimDevice device{small_machine(), {.jitter = 3, .seed = 7}};
};

struct Host {
  static constexpr bool kVirtualTime = false;
  static constexpr bool kRunsAhead = false;
  HostDevice device{standard_queues(2)};
};

/// Of streams on an emulated GPU.
struct Cuda {
  static constexpr bool kVirtualTime = false;
  static constexpr bool kRunsAhead = true;  ///< groups that are cancelled may have been run
  explicit Cuda(std::uint64_t seed = 1) : gpu(seed) {}
  EmulatedGpu gpu;
  CudaDevice device{gpu, standard_queues(2)};
};

template <typename Inner>
struct Checked {
  static constexpr bool kVirtualTime = Inner::kVirtualTime;
  static constexpr bool kRunsAhead = Inner::kRunsAhead;
  Inner inner;
  CheckingDevice device{inner.device};
};

template <typename Inner>
struct Faultless {
  static constexpr bool kVirtualTime = Inner::kVirtualTime;
  static constexpr bool kRunsAhead = Inner::kRunsAhead;
  Inner inner;
  FaultDevice device{inner.device, {}};
};

template <typename Inner>
struct Traced {
  static constexpr bool kVirtualTime = Inner::kVirtualTime;
  static constexpr bool kRunsAhead = Inner::kRunsAhead;
  Traced() { device.record(true); }
  Inner inner;
  TracingDevice device{inner.device, 4096};
};

/// Memory that lives as long as a test's device.
class Memory {
 public:
  Memory(Device& device, Bytes bytes, SpaceInfo::Kind kind = SpaceInfo::Kind::host)
      : bytes_(static_cast<std::size_t>(bytes)) {
    const auto registered = device.register_space({kind, bytes, bytes_.data()});
    if (registered.status != Status::ok) throw Error("the device did not take a space");
    space_ = registered.space;
  }

  Address at(Bytes offset, Bytes bytes) const { return {space_, offset, bytes}; }
  SpaceId space() const { return space_; }
  std::vector<std::byte>& bytes() { return bytes_; }
  std::uint8_t operator[](Bytes offset) const {
    return static_cast<std::uint8_t>(bytes_[static_cast<std::size_t>(offset)]);
  }

 private:
  std::vector<std::byte> bytes_;
  SpaceId space_;
};

/// Ends with the device idle; the outcome of each ticket in the order of completion.
inline std::vector<Completion> drain(Device& device) {
  std::vector<Completion> all;
  while (const auto completion = device.next_completion(10 * kSecond)) all.push_back(*completion);
  return all;
}

inline Status outcome(const std::vector<Completion>& all, Ticket ticket) {
  for (const Completion& completion : all)
    if (completion.ticket == ticket) return completion.status;
  throw Error("a ticket never completed");
}

}  // namespace modalkv
