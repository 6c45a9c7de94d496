// What the requests of a trace would use again: KV as units, one a shareable segment.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "modalkv/model.hpp"
#include "modalkv/policy.hpp"
#include "scheduler/cost_model.hpp"
#include "scheduler/eviction_facts.hpp"
#include "scheduler/request.hpp"

namespace modalkv {

/// How a unit comes back once it has left.
enum class ReloadBy : std::uint8_t {
  link,      ///< over the link, from the tier below
  recompute  ///< by prefill behind the tokens before it, and the vision encoder
};

struct UnitUses {
  std::vector<EvictionFacts> units;         ///< [units], by the number that `uses` has
  std::vector<std::uint32_t> uses;          ///< unit numbers, in the order of requests and prompts
  std::vector<std::size_t> request_starts;  ///< [requests + 1], in `uses`

  std::size_t requests() const { return request_starts.size() - 1; }
  std::span<const std::uint32_t> of_request(std::size_t request) const {
    return {uses.data() + request_starts[request],
            request_starts[request + 1] - request_starts[request]};
  }
  Bytes bytes() const;  ///< of all units
};

/// Text is stored in `policy`'s high format, visual segments in its low one where it has one.
UnitUses unit_uses(const Trace& trace, const ModelGeometry& model, const PrecisionPolicy& policy,
                   const CostModel& cost, ReloadBy reload_by);

}  // namespace modalkv
