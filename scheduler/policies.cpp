#include "scheduler/policies.hpp"

namespace modalkv {
namespace {

constexpr PlacePermissions kResidentOnly{.resident = true};
constexpr PlacePermissions kStreamedOnly{.resident = false, .streamed = true};
constexpr PlacePermissions kResidentAndStreamed{.resident = true, .streamed = true};
constexpr PlacePermissions kAnywhere{.resident = true, .streamed = true, .cpu = true};

PrecisionPolicy sixteen_bit(std::string name, std::string summary, PlacePermissions places) {
  return {.name = std::move(name),
          .summary = std::move(summary),
          .selection = Selection::all,
          .places = places};
}

PrecisionPolicy uniform(std::string name, std::string summary, ElementFormat low) {
  return {.name = std::move(name),
          .summary = std::move(summary),
          .selection = Selection::none,
          .keep = 0,
          .text_low = both(low),
          .visual_low = both(low),
          .places = kAnywhere,
          .pinned_tokens = 0,
          .window_tokens = 0};
}

PrecisionPolicy centric(std::string name, std::string summary, Selection selection,
                        ElementFormat text_low, ElementFormat visual_low) {
  return {.name = std::move(name),
          .summary = std::move(summary),
          .selection = selection,
          .keep = 0.10,
          .text_low = both(text_low),
          .visual_low = both(visual_low),
          .places = kAnywhere};
}

}  // namespace

std::vector<PrecisionPolicy> builtin_policies() {
  // Text that does not fit is demoted to 8 bits, never further: it is what answers hang on.
  return {
      sixteen_bit("fp16-resident", "all KV in GPU memory; queues and preempts when full",
                  kResidentOnly),
      sixteen_bit("fp16-stream", "all KV in pinned host memory, streamed in every step",
                  kStreamedOnly),
      sixteen_bit("fp16-offload", "fills the GPU budget, streams the rest", kResidentAndStreamed),
      uniform("uniform-int8", "every token may become INT8", int8_token_head()),
      uniform("uniform-int4", "every token may become INT4 (groups of 128)", int4_grouped(128)),
      centric("text-centric", "10 % in 16 bits, text first; image tokens may become INT4",
              Selection::text_centric, int8_token_head(), int4_grouped(128)),
      centric("text-centric-int2", "10 % in 16 bits, text first; image tokens may become INT2",
              Selection::text_centric, int8_token_head(), int2_grouped(64)),
      centric("image-centric", "10 % in 16 bits, images first; text may become INT4",
              Selection::image_centric, int4_grouped(128), int8_token_head()),
  };
}

std::optional<PrecisionPolicy> find_policy(std::string_view name) {
  for (PrecisionPolicy& policy : builtin_policies())
    if (policy.name == name) return policy;
  return std::nullopt;
}

}  // namespace modalkv
