// Attend and Score in the words of their kernels.
#pragma once

#include "kernels/cuda/attend_task.hpp"
#include "kernels/cuda/gpu_launch.hpp"
#include "kernels/cuda/op_memory.hpp"
#include "kernels/quantizer.hpp"

namespace modalkv {

/// Score has no scale of values.
template <typename OverPages>
AttendShape attend_shape(const OverPages& op, SpaceMemory memory) {
  AttendShape shape{.page = op.shape,
                    .page_bytes = page_bytes(op.shape),
                    .query_heads = op.query_heads,
                    .query_tokens = op.query_tokens,
                    .input = op.input,
                    .logit_scale = op.logit_scale,
                    .key_scale = op.key_scale,
                    .value_scale = 1,
                    .window = op.window,
                    .bias = as<const float>(op.key_bias.elements, memory),
                    .frequencies = as<const float>(op.key_bias.frequencies, memory),
                    .sections = op.key_bias.sections};
  if constexpr (requires { op.value_scale; }) shape.value_scale = op.value_scale;
  return shape;
}

template <typename OverPages>
AttendTask attend_task(const OverPages& op, float* partials, SpaceMemory memory) {
  const bool lacks_bias =
      op.key_bias.elements.bytes != 0 && quantization(op.shape.format.key) != Quantization::none;
  return {.queries = as<const std::uint16_t>(op.queries, memory),
          .pages = as<const std::byte>(op.pages, memory),
          .page_table = as<const std::byte>(op.page_table, memory),
          .query_positions = as<const std::int32_t>(op.query_positions, memory),
          .token_positions = as<const std::int32_t>(op.token_positions, memory),
          .hidden = as<const std::uint64_t>(op.hidden, memory),
          .bias_positions =
              lacks_bias ? as<const std::int32_t>(op.key_bias.positions, memory) : nullptr,
          .partials = partials,
          .pages_bytes = op.pages.bytes,
          .tokens = op.tokens,
          .first_split = 0,
          .split_tiles = 0};
}

/// Whether two operations can be tasks of one launch.
inline bool are_alike(const Attend& a, const Attend& b) {
  return a.shape == b.shape && a.query_heads == b.query_heads && a.query_tokens == b.query_tokens &&
         a.input == b.input && a.logit_scale == b.logit_scale && a.key_scale == b.key_scale &&
         a.value_scale == b.value_scale && a.window == b.window &&
         a.key_bias.elements == b.key_bias.elements &&
         a.key_bias.frequencies == b.key_bias.frequencies &&
         a.key_bias.sections == b.key_bias.sections;
}

}  // namespace modalkv
