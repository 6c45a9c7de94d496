#include "offload/fault_block_file.hpp"

#include <algorithm>
#include <cassert>
#include <cstring>

namespace modalkv {
namespace {

constexpr int kGarbage = 0xdb;

std::byte& middle(const BlockTransfer& transfer) {
  return transfer.memory[transfer.bytes / 2 + 1];
}

}  // namespace

FaultBlockFile::FaultBlockFile(std::unique_ptr<BlockFile> inner, const BlockFaultPlan& plan)
    : BlockFile(inner->max_in_flight()),
      inner_(std::move(inner)),
      plan_(plan),
      random_(plan.seed) {}

BlockFaultCounts FaultBlockFile::injected() const {
  const std::lock_guard lock(mutex_);
  return injected_;
}

Status FaultBlockFile::sync() {
  {
    const std::lock_guard lock(mutex_);
    if (std::uniform_real_distribution<>()(random_) < plan_.sync_error) {
      ++injected_.sync_error;
      return Status::io_error;
    }
  }
  return inner_->sync();
}

FaultBlockFile::Fault FaultBlockFile::draw(BlockTransfer::Kind kind) {
  const bool reads = kind == BlockTransfer::Kind::read;
  const std::pair<Fault, double> chances[] = {
      {Fault::read_error, reads ? plan_.read_error : 0},
      {Fault::short_read, reads ? plan_.short_read : 0},
      {Fault::bit_flip, plan_.bit_flip},
      {Fault::write_error, reads ? 0 : plan_.write_error},
      {Fault::no_space, reads ? 0 : plan_.no_space},
      {Fault::late, plan_.late},
      {Fault::lost, plan_.lost},
  };
  const std::lock_guard lock(mutex_);
  double left = std::uniform_real_distribution<>()(random_);
  for (const auto& [fault, chance] : chances) {
    if (left < chance) {
      count(fault);
      return fault;
    }
    left -= chance;
  }
  return Fault::none;
}

void FaultBlockFile::count(Fault fault) {
  switch (fault) {
    case Fault::none:
      break;
    case Fault::read_error:
      ++injected_.read_error;
      break;
    case Fault::short_read:
      ++injected_.short_read;
      break;
    case Fault::bit_flip:
      ++injected_.bit_flip;
      break;
    case Fault::write_error:
      ++injected_.write_error;
      break;
    case Fault::no_space:
      ++injected_.no_space;
      break;
    case Fault::late:
      ++injected_.late;
      break;
    case Fault::lost:
      ++injected_.lost;
      break;
  }
}

void FaultBlockFile::start(const BlockTransfer& transfer) {
  BlockTransfer performed = transfer;
  Fault fault = draw(transfer.kind);
  if (fault == Fault::write_error) performed.bytes = transfer.bytes / 2 / kBlockBytes * kBlockBytes;
  if (fault == Fault::no_space || performed.bytes == 0) {
    refused_.push_back(
        {transfer.tag, fault == Fault::no_space ? Status::no_space : Status::io_error, 0});
    return;
  }
  if (fault == Fault::bit_flip && transfer.kind == BlockTransfer::Kind::write)
    middle(transfer) ^= std::byte{4};
  pending_.push_back({transfer, fault});
  [[maybe_unused]] const Status status = inner_->submit(performed);
  assert(status == Status::ok);  // it has at least our room
}

std::optional<BlockCompletion> FaultBlockFile::next_completion(Nanos timeout_ns) {
  const auto take = [&](std::deque<BlockCompletion>& from) {
    const BlockCompletion completion = from.front();
    from.pop_front();
    ended();
    return completion;
  };
  if (!refused_.empty()) return take(refused_);
  const std::optional<BlockCompletion> completion = next_inner(late_.empty() ? timeout_ns : 0);
  if (completion) {
    ended();
    return completion;
  }
  if (!late_.empty() && inner_->in_flight() == 0) return take(late_);
  return std::nullopt;
}

std::optional<BlockCompletion> FaultBlockFile::next_inner(Nanos timeout_ns) {
  while (const auto completion = inner_->next_completion(timeout_ns)) {
    if (const auto told = spoiled(*completion)) return told;
    timeout_ns = 0;
  }
  return std::nullopt;
}

std::optional<BlockCompletion> FaultBlockFile::spoiled(const BlockCompletion& completion) {
  const auto found = std::find_if(pending_.begin(), pending_.end(), [&](const Pending& pending) {
    return pending.transfer.tag == completion.tag;
  });
  const BlockTransfer transfer = found->transfer;
  const Fault fault = found->fault;
  pending_.erase(found);
  BlockCompletion told = completion;
  const auto garble = [&](Bytes from) {
    std::memset(transfer.memory + from, kGarbage, static_cast<std::size_t>(transfer.bytes - from));
  };
  switch (fault) {
    case Fault::read_error:
      garble(0);
      [[fallthrough]];
    case Fault::write_error:
      told.status = Status::io_error;
      break;
    case Fault::short_read:
      told.bytes = transfer.bytes / 2;
      garble(told.bytes);
      break;
    case Fault::bit_flip:
      middle(transfer) ^= std::byte{4};
      break;  // of a write: back
    case Fault::late:
      late_.push_back(told);
      return std::nullopt;
    case Fault::lost:
      return std::nullopt;
    case Fault::none:
    case Fault::no_space:
      break;
  }
  return told;
}

}  // namespace modalkv
