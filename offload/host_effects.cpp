#include "offload/host_effects.hpp"

namespace modalkv {

Status HostEffects::perform(const Op& op, SpaceMemory memory) {
  const auto* attend = std::get_if<Attend>(&op);
  if (attend == nullptr || !attention_) return modalkv::perform(op, memory);
  const auto pages = static_cast<std::size_t>(divide_up(attend->tokens, attend->shape.tokens));
  if (pages_.size() < pages) pages_.resize(pages);
  AttendOperands operands;
  const Status status = find_operands(*attend, memory, pages_, operands);
  if (status != Status::ok) return status;
  const SequenceAttention sequence{operands.queries, {&operands.list, 1}, operands.partials};
  attention_->attend({&sequence, 1});
  return Status::ok;
}

}  // namespace modalkv
