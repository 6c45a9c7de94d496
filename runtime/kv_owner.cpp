#include "runtime/kv_owner.hpp"

#include <fmt/format.h>

#include <optional>
#include <string>

#include "modalkv/content.hpp"
#include "scheduler/format_name.hpp"

namespace modalkv {

ContentId kv_owner(const RuntimeConfig& config) {
  const PrecisionPolicy& policy = config.policy;
  const auto low = [](const std::optional<KvFormat>& format) {
    return format ? describe(*format) : "none";
  };
  // KV of a layer follows from what attention read in those below it: how that is stored counts.
  const std::string facts = fmt::format(
      "layers {} {} {}, query heads {}, kv heads {}, head dim {}, input {}, scale {}, window {}, "
      "pages {} {}, selection {} {}, high {}, text low {}, visual low {}, ranks {}, tag {}",
      config.layers, policy.high_first_layers, policy.high_last_layers, config.query_heads,
      config.kv_heads, config.head_dim, name(config.input), config.logit_scale, config.window,
      config.own_page_tokens, config.visual_page_tokens, name(policy.selection), policy.keep,
      describe(policy.high), low(policy.text_low), low(policy.visual_low),
      config.tensor_parallel_ranks, config.kv_tag);
  return {chain({}, {TokenClass::text, 1, {{1, 0, 0, 0}}}, facts)->words};
}

}  // namespace modalkv
