// An engine that serves a batch with images through a KV cache: prompts in chunks, then decode
// steps, all sequences together.
#pragma once

#include <atomic>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "modalkv/hardware.hpp"
#include "runtime/kv_cache.hpp"
#include "runtime/replanner.hpp"
#include "tools/bench/e2e/e2e_machine.hpp"
#include "tools/bench/e2e/inflating_device.hpp"
#include "tools/bench/patient_engine.hpp"

namespace modalkv {

/// What is served.
struct E2eLoad {
  ModelGeometry model{};
  int batch = 8;
  Tokens image_tokens = 2880;  ///< of each sequence, before its text
  Tokens text_tokens = 320;
  Tokens chunk_tokens = 512;  ///< of a prompt in a step
  int decode_steps = 32;
  Bytes device_budget_bytes = 0;  ///< of KV pages and staging together
  Bytes host_bytes = 0;

  Tokens prompt_tokens() const { return image_tokens + text_tokens; }
  /// 16-bit KV at the end.
  Bytes kv_bytes() const {
    return kv_bytes_per_token(model, both(fp16())) * batch * (prompt_tokens() + decode_steps);
  }
};

/// A policy, and whether compressed pages become 16-bit pages again before attention.
struct E2ePolicy {
  std::string name{};
  PrecisionPolicy policy{};
  bool inflates = false;
};

/// Of partial results and rows of the runtime, beside the budget: the same for every policy.
Bytes workspace_bytes(const E2eLoad& load);
Bytes tables_bytes(const E2eLoad& load);
/// Beside all that, of a policy that inflates.
Bytes inflation_bytes(const E2eLoad& load);

/// Before anything is made or measured: throws Error where no placement of the policy fits,
/// whatever the machine's speed, and says what would.
void require_room(const E2eLoad& load, const E2ePolicy& policy);

class E2eEngine {
 public:
  /// Plans for the whole batch. Throws Error where no placement of the policy fits.
  E2eEngine(E2eMachine& machine, const E2eLoad& load, const E2ePolicy& policy,
            const HardwareProfile& profile);

  struct Prefill {
    Nanos time_ns = 0;  ///< until the first token is sampled
    Tokens reused = 0;
  };
  /// The prompt of the `nth` sequence, whose image has been seen where it was served before.
  Prefill prefill(int nth);
  /// A token for each sequence. Throws Error where a step fails.
  Nanos decode_step();
  void release_all();
  /// Until all KV is where it should be.
  void settle() { calls_->settle(); }

  const Plan& plan() const { return planned_.plan; }
  std::int64_t inflated_pages() const { return inflating_ ? inflating_->inflated_pages() : 0; }
  const RuntimeCounters& counters() const { return cache_->counters(); }
  Bytes staging_bytes() const { return config_.staging_slots * config_.staging_slot_bytes; }

 private:
  RuntimeConfig config(const PrecisionPolicy& policy) const;
  // Of some sequences, each with so many rows, through all layers.
  void run_layers(std::span<const SequenceId> sequences, Tokens rows_each);
  void set_up_inflation();
  Device& outer() { return inflating_ ? *inflating_ : *device_; }
  void wait_for(const std::atomic<std::uint64_t>& word, std::uint64_t value);

  E2eMachine& machine_;
  E2eLoad load_;
  Replanner::Planned planned_;
  RuntimeConfig config_;
  std::unique_ptr<Device> device_;
  std::optional<InflatingDevice> inflating_;
  std::unique_ptr<KvCache> cache_;
  std::optional<PatientEngine> calls_;
  Address rows_{};
  std::vector<SequenceId> sequences_;
  Tokens decoded_ = 0;              // of each sequence
  std::uint64_t layers_, samples_;  // so far, as the machine's words count
};

}  // namespace modalkv
