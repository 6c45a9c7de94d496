// A trace as another model would have met it: the same images, counted by that model's own rule.
#pragma once

#include "modalkv/model.hpp"
#include "scheduler/request.hpp"

namespace modalkv {

/// Every visual segment's size is inferred from its token count, one token per 28 x 28 pixels (the
/// models that the published traces come from), and becomes tokens by `model`'s rule; a model
/// without a rule drops it. Text stays.
Trace with_image_rule(const Trace& trace, const ModelGeometry& model);

}  // namespace modalkv
