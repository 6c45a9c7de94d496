#include "scheduler/cost_model.hpp"

#include <algorithm>
#include <cmath>

#include "modalkv/page.hpp"

namespace modalkv {
namespace {

constexpr Bytes kWantedPieceBytes = 64 * kKiB;

double ns_per(double per_second) {
  return 1e9 / per_second;
}

// The encoder's activations for the largest image: input, attention and FFN rows in 16 bits.
Bytes vision_workspace_bytes(const ModelGeometry& model) {
  const VisionEncoder& vision = model.vision;
  if (vision.layers == 0) return 0;
  const double tokens =
      static_cast<double>(std::max(model.image_rule.max_tokens, model.image_rule.tokens_per_unit));
  return static_cast<Bytes>(tokens * vision.patches_per_token * 2.0 *
                            (5.0 * vision.hidden + (vision.gated_ffn ? 2.0 : 1.0) * vision.ffn));
}

}  // namespace

CostModel::CostModel(const ModelGeometry& model, const HardwareProfile& hardware) : model_(model) {
  const double q = static_cast<double>(model.q_heads) * model.head_dim;
  const double kv = static_cast<double>(model.kv_heads) * model.head_dim;
  const double hidden = model.hidden, ffn = model.ffn;
  const auto gemm = [](double inputs, double outputs) {
    return Gemm{2 * inputs * outputs, 2 * (inputs + outputs), 2 * inputs * outputs};
  };
  qkv_ = gemm(hidden, q + 2 * kv);
  output_ = gemm(q, hidden);
  gate_up_ = gemm(hidden, 2 * ffn);
  down_ = gemm(ffn, hidden);
  head_ = gemm(hidden, model.vocabulary);

  const GpuProfile& gpu = hardware.gpu;
  memory_ns_per_byte_ = ns_per(gpu.memory_bytes_per_s * gpu.efficiency.gemm_memory);
  ns_per_flop_ = ns_per(gpu.flops_16bit * gpu.efficiency.gemm_flops);
  prefill_ns_per_pair_ = 4 * q * ns_per(gpu.flops_16bit * gpu.efficiency.prefill_flops);
  attend_ns_per_byte_ = ns_per(gpu.memory_bytes_per_s * gpu.efficiency.attention_memory);
  attention_launch_ns_ = gpu.attention_launch_ns;
  small_layer_ns_ = gpu.small_ops_ns_per_layer;
  small_token_ns_ = gpu.small_ops_ns_per_token;
  step_host_ns_ = gpu.step_host_ns;
  handover_ns_ = nanos(gpu.handover_ns);

  link_ = hardware.link;

  // Every node attends to its own pages; the GPU's node also feeds the link.
  double dram = 0, host_memory = 0;
  for (const NumaNode& node : hardware.host.numa_nodes.value) {
    dram += node.dram_bytes_per_s;
    host_memory += static_cast<double>(node.memory_bytes);
  }
  const double reachable = dram * hardware.host.attention_memory;
  cpu_ns_per_byte_ = ns_per(std::max(reachable - link_.h2d_bytes_per_s, reachable / 4));
  host_budget_bytes_ = static_cast<Bytes>(host_memory * hardware.host.pinnable_share);

  weight_bytes_ = modalkv::weight_bytes(model);
  gpu_memory_bytes_ = gpu.memory_bytes;
  workspace_bytes_ = gpu.reserved_bytes + vision_workspace_bytes(model);
}

double CostModel::gemm_ns(const Gemm& gemm, double tokens) const {
  const double memory =
      (gemm.weight_bytes + gemm.activation_bytes_per_token * tokens) * memory_ns_per_byte_;
  const double arithmetic = gemm.flops_per_token * tokens * ns_per_flop_;
  return std::sqrt(memory * memory + arithmetic * arithmetic);
}

double CostModel::expert_ns(double tokens) const {
  if (model_.experts == 0) return gemm_ns(gate_up_, tokens) + gemm_ns(down_, tokens);
  // Each token draws `active` of `experts`: so many distinct ones are read on average.
  const double experts = model_.experts, active = model_.active_experts;
  const double read = experts * (1 - std::pow(1 - active / experts, tokens));
  const auto of_experts = [&](Gemm gemm) {
    gemm.weight_bytes *= read;
    return gemm_ns({gemm.weight_bytes, gemm.activation_bytes_per_token * active,
                    gemm.flops_per_token * active},
                   tokens);
  };
  return of_experts(gate_up_) + of_experts(down_);
}

void CostModel::add_images(BatchShape& batch, std::int64_t images, double tokens_each) const {
  const VisionEncoder& vision = model_.vision;
  const double patches = tokens_each * vision.patches_per_token;
  const double attended =
      vision.attention_patches > 0 ? std::min<double>(patches, vision.attention_patches) : patches;
  batch.vision_patches += static_cast<double>(images) * patches;
  batch.vision_pairs += static_cast<double>(images) * patches * attended;
}

double CostModel::vision_ns(const BatchShape& batch) const {
  const VisionEncoder& vision = model_.vision;
  if (batch.vision_patches <= 0 || vision.layers == 0) return 0;
  const double parameters = vision_parameters(vision);
  const double flops = 2 * parameters * batch.vision_patches +
                       4.0 * vision.layers * vision.hidden * batch.vision_pairs;
  return std::hypot(2 * parameters * memory_ns_per_byte_, flops * ns_per_flop_);
}

ComputeTimes CostModel::compute(const BatchShape& batch) const {
  const auto tokens = static_cast<double>(batch.decode_tokens + batch.prefill_tokens);
  const double small = small_layer_ns_ + small_token_ns_ * tokens;
  const double vision = vision_ns(batch);
  const double head =
      batch.sampled_tokens > 0 ? gemm_ns(head_, static_cast<double>(batch.sampled_tokens)) : 0;
  return {.before_attention_ns = nanos(gemm_ns(qkv_, tokens) + small / 2),
          .fresh_attention_ns =
              nanos(attention_launch_ns_ + batch.prefill_pairs * prefill_ns_per_pair_),
          .after_attention_ns = nanos(gemm_ns(output_, tokens) + expert_ns(tokens) + small / 2),
          .step_ns = nanos(step_host_ns_ + head + vision),
          .vision_ns = nanos(vision)};
}

double CostModel::h2d_ns_per_byte(Bytes piece_bytes) const {
  return std::max(ns_per(copy_bytes_per_s(link_, link_.h2d_bytes_per_s, piece_bytes)),
                  link_.descriptor_ns / static_cast<double>(piece_bytes));
}

// Submission runs ahead of the copies, so the slower of the two decides; the first descriptor waits
// for both.
Nanos CostModel::h2d_ns(Bytes bytes, Bytes piece_bytes) const {
  if (bytes == 0) return 0;
  return nanos(link_.descriptor_ns + static_cast<double>(bytes) * h2d_ns_per_byte(piece_bytes));
}

Nanos CostModel::d2h_ns(Bytes bytes, Bytes piece_bytes) const {
  if (bytes == 0) return 0;
  const double per_byte =
      std::max(ns_per(copy_bytes_per_s(link_, link_.d2h_bytes_per_s, piece_bytes)),
               link_.descriptor_ns / static_cast<double>(piece_bytes));
  return nanos(link_.descriptor_ns + static_cast<double>(bytes) * per_byte);
}

Nanos CostModel::with_opposing_traffic(Nanos one_way_ns, Nanos opposing_ns) const {
  const auto shared = static_cast<double>(std::min(one_way_ns, opposing_ns));
  return one_way_ns + nanos(shared * (1 / link_.duplex_share - 1));
}

Bytes CostModel::piece_bytes(Bytes token_bytes) {
  const Bytes page = std::max<Bytes>(1, token_bytes * kPageTokens);
  return round_up(kWantedPieceBytes, page);
}

Bytes CostModel::device_kv_budget_bytes(double utilization) const {
  return static_cast<Bytes>(static_cast<double>(gpu_memory_bytes_) * utilization) - weight_bytes_ -
         workspace_bytes_;
}

}  // namespace modalkv
