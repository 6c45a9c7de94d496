// What an end-to-end run runs on: a device with its memory, and a decoder on it.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "modalkv/model.hpp"
#include "offload/device.hpp"
#include "tools/bench/e2e/decoder.hpp"

namespace modalkv {

/// What is to be had of memory, and how fast a link is made up where there is none.
struct E2eMachineConfig {
  ModelGeometry model{};
  Tokens max_rows = 0;
  Bytes device_bytes = 0;       ///< for KV and what attends to it
  Bytes host_bytes = 0;         ///< of KV
  Bytes tables_bytes = 0;       ///< seen by both sides
  int host_threads = 1;         ///< that attend on the CPU
  double link_bytes_per_s = 0;  ///< of the stand-in for a GPU; 0: as fast as memory
  std::uint64_t seed = 1;
};

/// Words that both sides see, with which the decoder and the runtime wait for each other. They
/// count on from policy to policy.
struct E2eWords {
  std::atomic<std::uint64_t> projected{0};  ///< layers
  std::atomic<std::uint64_t> attended{0};   ///< layers
  std::atomic<std::uint64_t> sampled{0};    ///< steps
};

class E2eMachine {
 public:
  virtual ~E2eMachine() = default;

  /// A device without spaces, groups or events: one a policy.
  virtual std::unique_ptr<Device> open_device() = 0;
  virtual Decoder& decoder() = 0;
  virtual std::span<std::byte> device_memory() = 0;
  virtual std::span<std::byte> host_memory() = 0;
  virtual std::span<std::byte> tables() = 0;
  virtual E2eWords& words() = 0;
  /// "NVIDIA H200, driver ...", or what stands in for a GPU.
  virtual std::string name() const = 0;

 protected:
  E2eMachine() = default;
  E2eMachine(const E2eMachine&) = default;
  E2eMachine& operator=(const E2eMachine&) = default;
};

/// Memory and threads of this process in place of a GPU. Throws Error where there is too little.
std::unique_ptr<E2eMachine> host_e2e_machine(const E2eMachineConfig& config);

}  // namespace modalkv
