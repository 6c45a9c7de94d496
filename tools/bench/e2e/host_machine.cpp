#include "offload/host_device.hpp"
#include "tools/bench/e2e/e2e_machine.hpp"
#include "tools/bench/e2e/host_decoder.hpp"
#include "tools/bench/huge_buffer.hpp"
#include "tools/bench/patient_engine.hpp"

namespace modalkv {
namespace {

class HostMachine final : public E2eMachine {
 public:
  explicit HostMachine(const E2eMachineConfig& config)
      : config_(config),
        device_memory_(available(config)),
        host_memory_(config.host_bytes),
        tables_(config.tables_bytes),
        decoder_(config.model, config.max_rows, config.seed) {}

  std::unique_ptr<Device> open_device() override {
    return std::make_unique<HostDevice>(
        roomy_queues(config_.host_threads, config_.link_bytes_per_s));
  }
  Decoder& decoder() override { return decoder_; }
  std::span<std::byte> device_memory() override { return device_memory_.bytes(); }
  std::span<std::byte> host_memory() override { return host_memory_.bytes(); }
  std::span<std::byte> tables() override { return tables_.bytes(); }
  E2eWords& words() override { return words_; }
  std::string name() const override { return "no GPU: memory and threads of this machine"; }

 private:
  static Bytes available(const E2eMachineConfig& config) {
    require_memory(config.device_bytes + config.host_bytes + config.tables_bytes,
                   "KV of the sequences");
    return config.device_bytes;
  }

  E2eMachineConfig config_;
  E2eWords words_;
  HugeBuffer device_memory_, host_memory_, tables_;
  HostDecoder decoder_;
};

}  // namespace

std::unique_ptr<E2eMachine> host_e2e_machine(const E2eMachineConfig& config) {
  return std::make_unique<HostMachine>(config);
}

}  // namespace modalkv
