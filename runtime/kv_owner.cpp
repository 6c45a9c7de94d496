#include "runtime/kv_owner.hpp"

#include <fmt/format.h>

#include "modalkv/content.hpp"

namespace modalkv {

ContentId kv_owner(const RuntimeConfig& config) {
  const PrecisionPolicy& policy = config.policy;
  // Shapes and formats are part of a page's key; here is what decides which tokens a page has.
  const bool promotes = policy.visual_low && policy.selection != Selection::none;
  const std::string facts = fmt::format(
      "layers {}, query heads {}, kv heads {}, head dim {}, input {}, own page {}, visual page {}, "
      "first of images apart {}, ranks {}, tag {}",
      config.layers, config.query_heads, config.kv_heads, config.head_dim, name(config.input),
      config.own_page_tokens, config.visual_page_tokens, promotes, config.tensor_parallel_ranks,
      config.kv_tag);
  return {chain({}, {TokenClass::text, 1, {{1, 0, 0, 0}}}, facts)->words};
}

}  // namespace modalkv
