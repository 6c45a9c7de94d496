#include "tools/bench/e2e/gpu_machine.hpp"

#include <new>
#include <utility>

#include "modalkv/error.hpp"
#include "offload/cuda/cuda_device.hpp"
#include "offload/cuda/cuda_driver.hpp"
#include "offload/gpu_probe.hpp"
#include "tools/bench/e2e/cuda/gpu_decoder.hpp"
#include "tools/bench/huge_buffer.hpp"
#include "tools/bench/patient_engine.hpp"

namespace modalkv {
namespace {

class GpuMachine final : public E2eMachine {
 public:
  GpuMachine(std::unique_ptr<GpuDriver> driver, std::unique_ptr<Decoder> decoder, std::string name,
             const E2eMachineConfig& config)
      : config_(config),
        name_(std::move(name)),
        driver_(std::move(driver)),
        device_memory_(driver_->make_device_memory(config.device_bytes)),
        tables_(driver_->make_pinned(config.tables_bytes)),
        words_(new (driver_->make_pinned(sizeof(E2eWords)).data()) E2eWords),
        host_memory_(pinnable(config.host_bytes)),
        decoder_(std::move(decoder)) {
    if (const std::string why = driver_->register_host(host_memory_.bytes()); !why.empty())
      throw Error("bench e2e: host memory cannot be pinned: " + why);
  }
  ~GpuMachine() override { driver_->unregister_host(host_memory_.bytes()); }

  std::unique_ptr<Device> open_device() override {
    return std::make_unique<CudaDevice>(*driver_, roomy_queues(config_.host_threads),
                                        CudaDeviceOptions{.pins_host_spaces = false});
  }
  Decoder& decoder() override { return *decoder_; }
  std::span<std::byte> device_memory() override { return device_memory_; }
  std::span<std::byte> host_memory() override { return host_memory_.bytes(); }
  std::span<std::byte> tables() override { return tables_; }
  E2eWords& words() override { return *words_; }
  std::string name() const override { return name_; }

 private:
  static Bytes pinnable(Bytes bytes) {
    require_memory(bytes, "pinned KV of the sequences");
    return bytes;
  }

  E2eMachineConfig config_;
  std::string name_;
  std::unique_ptr<GpuDriver> driver_;  // first: all memory but the host's is its
  std::span<std::byte> device_memory_, tables_;
  E2eWords* words_;
  HugeBuffer host_memory_;
  std::unique_ptr<Decoder> decoder_;
};

}  // namespace

std::unique_ptr<E2eMachine> gpu_e2e_machine(std::unique_ptr<GpuDriver> driver,
                                            std::unique_ptr<Decoder> decoder, std::string name,
                                            const E2eMachineConfig& config) {
  return std::make_unique<GpuMachine>(std::move(driver), std::move(decoder), std::move(name),
                                      config);
}

std::unique_ptr<E2eMachine> first_gpu_e2e_machine(const E2eMachineConfig& config) {
  const GpuProbe probe = probe_gpus();
  if (probe.gpus.empty()) throw Error("bench e2e: no GPU: " + probe.reason);
  auto driver = open_cuda_driver();
  auto decoder = gpu_decoder(*driver, config.model, config.max_rows, config.seed);
  return gpu_e2e_machine(std::move(driver), std::move(decoder), probe.gpus.front().name, config);
}

}  // namespace modalkv
