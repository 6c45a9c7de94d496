// What a step's parts cost on a machine: GEMMs, attention, copies, CPU attention, encoding, vision
// encoder.
//
// Per layer and GEMM: sqrt((bytes / (BW e_m))^2 + (flops / (F e_f))^2). Decode attention: t0 + KV
// bytes / (BW e_a). Prefill attention: 4 h d chunk (kv + chunk / 2) / (F e_p). A step adds the LM
// head and host time. Copies: never bytes / peak, but a size-dependent rate and a cost per
// descriptor.
#pragma once

#include <vector>

#include "modalkv/hardware.hpp"
#include "modalkv/model.hpp"
#include "modalkv/units.hpp"

namespace modalkv {

/// What the GPU computes in a step, apart from where KV lives.
struct BatchShape {
  Tokens decode_tokens = 0;   ///< one a decoding sequence
  Tokens prefill_tokens = 0;  ///< in chunks
  /// Sum over chunks of chunk x (context before it + chunk / 2): query-key pairs.
  double prefill_pairs = 0;
  Tokens sampled_tokens = 0;  ///< rows of the LM head
  double vision_patches = 0;  ///< read by the vision encoder in this step
  double vision_pairs = 0;    ///< of patches that attend to each other, one layer
};

/// GPU time without attention to stored KV.
struct ComputeTimes {
  Nanos before_attention_ns = 0;  ///< of a layer: until its queries exist
  Nanos fresh_attention_ns = 0;   ///< of a layer: launch and attention among the chunk's own tokens
  Nanos after_attention_ns = 0;   ///< of a layer: projection, FFN, small operations
  Nanos step_ns = 0;              ///< once a step: vision encoder, LM head, host time
  Nanos vision_ns = 0;            ///< of step_ns
};

/// Immutable; safe to share among threads.
class CostModel {
 public:
  CostModel(const ModelGeometry& model, const HardwareProfile& hardware);

  ComputeTimes compute(const BatchShape& batch) const;

  /// GPU reading `bytes` of stored KV of one layer for decode attention.
  Nanos attend_ns(Bytes bytes) const {
    return nanos(static_cast<double>(bytes) * attend_ns_per_byte_);
  }
  /// CPU attending to `bytes` of one layer, on the nodes that hold them.
  Nanos cpu_attend_ns(Bytes bytes) const {
    return nanos(static_cast<double>(bytes) * cpu_ns_per_byte_);
  }
  /// GPU reading 16-bit KV and writing it compressed, `bytes` both together.
  Nanos encode_ns(Bytes bytes) const {
    return nanos(static_cast<double>(bytes) * attend_ns_per_byte_);
  }
  /// One batch of copies of `bytes` in pieces of `piece_bytes`. 0 bytes cost nothing.
  Nanos h2d_ns(Bytes bytes, Bytes piece_bytes) const;
  Nanos d2h_ns(Bytes bytes, Bytes piece_bytes) const;
  /// `one_way_ns` of traffic while the other direction is busy for `opposing_ns`.
  Nanos with_opposing_traffic(Nanos one_way_ns, Nanos opposing_ns) const;

  /// Contiguous bytes of one descriptor where a token takes `token_bytes` in a layer: whole pages,
  /// at least 64 KiB, below which links collapse.
  static Bytes piece_bytes(Bytes token_bytes);

  double attend_ns_per_byte() const { return attend_ns_per_byte_; }
  double cpu_ns_per_byte() const { return cpu_ns_per_byte_; }
  double h2d_ns_per_byte(Bytes piece_bytes) const;
  /// What `images` images of `tokens_each` tokens add to a batch's vision work.
  void add_images(BatchShape& batch, std::int64_t images, double tokens_each) const;
  Nanos handover_ns() const { return handover_ns_; }

  /// GPU memory for KV and staging, of `utilization` of the card; negative where weights don't fit.
  Bytes device_kv_budget_bytes(double utilization) const;
  Bytes host_kv_budget_bytes() const { return host_budget_bytes_; }
  Bytes weight_bytes() const { return weight_bytes_; }

 private:
  struct Gemm {
    double weight_bytes = 0;
    double activation_bytes_per_token = 0;
    double flops_per_token = 0;
  };

  static Nanos nanos(double ns) { return static_cast<Nanos>(ns + 0.5); }
  double gemm_ns(const Gemm& gemm, double tokens) const;
  double expert_ns(double tokens) const;
  double vision_ns(const BatchShape& batch) const;

  ModelGeometry model_;
  Gemm qkv_, output_, gate_up_, down_, head_;
  double memory_ns_per_byte_ = 0;  // GEMM traffic
  double ns_per_flop_ = 0;         // GEMM arithmetic
  double prefill_ns_per_pair_ = 0;
  double attend_ns_per_byte_ = 0;
  double cpu_ns_per_byte_ = 0;
  double attention_launch_ns_ = 0, small_layer_ns_ = 0, small_token_ns_ = 0, step_host_ns_ = 0;
  LinkProfile link_;
  Nanos handover_ns_ = 0;
  Bytes weight_bytes_ = 0, gpu_memory_bytes_ = 0, workspace_bytes_ = 0, host_budget_bytes_ = 0;
};

}  // namespace modalkv
