#include "tools/trace/unit_uses.hpp"

#include "modalkv/content.hpp"
#include "scheduler/content_index.hpp"

namespace modalkv {
namespace {

class UnitMaker {
 public:
  UnitMaker(const ModelGeometry& model, const PrecisionPolicy& policy, const CostModel& cost,
            ReloadBy reload_by)
      : model_(model), policy_(policy), cost_(cost), reload_by_(reload_by) {}

  EvictionFacts facts(const Segment& segment, Tokens before) const {
    const bool low = is_visual(segment.token_class) && policy_.visual_low;
    EvictionFacts facts{.token_class = segment.token_class,
                        .format = low ? *policy_.visual_low : policy_.high};
    const Bytes token_bytes = kv_bytes_per_token_layer(model_, facts.format);
    facts.bytes = segment.tokens * token_bytes * model_.layers;
    facts.reload_ns = reload_by_ == ReloadBy::link
                          ? cost_.h2d_ns(facts.bytes, CostModel::piece_bytes(token_bytes))
                          : recompute_ns(segment, before);
    return facts;
  }

 private:
  Nanos recompute_ns(const Segment& segment, Tokens before) const {
    const auto tokens = static_cast<double>(segment.tokens);
    BatchShape batch{.prefill_tokens = segment.tokens,
                     .prefill_pairs = tokens * (static_cast<double>(before) + tokens / 2)};
    if (is_visual(segment.token_class)) cost_.add_images(batch, 1, tokens);
    const ComputeTimes times = cost_.compute(batch);
    return times.vision_ns + model_.layers * (times.before_attention_ns + times.fresh_attention_ns +
                                              times.after_attention_ns);
  }

  const ModelGeometry& model_;
  const PrecisionPolicy& policy_;
  const CostModel& cost_;
  ReloadBy reload_by_;
};

}  // namespace

Bytes UnitUses::bytes() const {
  Bytes total = 0;
  for (const EvictionFacts& unit : units) total += unit.bytes;
  return total;
}

UnitUses unit_uses(const Trace& trace, const ModelGeometry& model, const PrecisionPolicy& policy,
                   const CostModel& cost, ReloadBy reload_by) {
  const UnitMaker maker(model, policy, cost, reload_by);
  UnitUses result{.units = {}, .uses = {}, .request_starts = {0}};
  ContentIndex index;
  for (const Request& request : trace.requests) {
    const auto segments = trace.segments_of(request);
    Tokens before = 0;
    const std::vector<PrefixId> ids = chain(segments, model.name);
    for (std::size_t i = 0; i < ids.size(); ++i) {
      const UnitId next{result.units.size()};
      if (index.insert(ids[i], next)) result.units.push_back(maker.facts(segments[i], before));
      result.uses.push_back(static_cast<std::uint32_t>(index.find(ids[i]).value()));
      before += segments[i].tokens;
    }
    result.request_starts.push_back(result.uses.size());
  }
  return result;
}

}  // namespace modalkv
