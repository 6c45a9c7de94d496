#include "offload/host_pools.hpp"

#include <algorithm>
#include <chrono>

namespace modalkv {
namespace {

constexpr Nanos kMaxWaitNanos = 3600 * kSecond;

}  // namespace

std::vector<HostPoolShare> fill_in_order(std::span<const TopologyNode* const> nodes, Bytes bytes,
                                         Bytes headroom_bytes) {
  std::vector<HostPoolShare> shares;
  for (const TopologyNode* node : nodes) {
    const Bytes share = std::min(bytes, node->memory_bytes - headroom_bytes);
    if (share <= 0) continue;
    shares.push_back({node, share});
    bytes -= share;
  }
  return shares;
}

std::vector<HostPoolShare> spread_evenly(std::span<const TopologyNode* const> nodes, Bytes bytes,
                                         Bytes headroom_bytes) {
  std::vector<HostPoolShare> shares;
  for (const TopologyNode* node : nodes) shares.push_back({node, 0});
  // Whole pages of memory; each round gives what is left to the nodes that have room.
  while (bytes > 0) {
    const auto has_room = [&](const HostPoolShare& share) {
      return share.node->memory_bytes - headroom_bytes > share.bytes;
    };
    const auto open = std::count_if(shares.begin(), shares.end(), has_room);
    if (open == 0) break;
    const Bytes even = std::max(round_up(bytes / open, 4096), Bytes{4096});
    for (HostPoolShare& share : shares) {
      if (!has_room(share)) continue;
      const Bytes more =
          std::min({even, bytes, share.node->memory_bytes - headroom_bytes - share.bytes});
      share.bytes += more;
      bytes -= more;
    }
  }
  std::erase_if(shares, [](const HostPoolShare& share) { return share.bytes <= 0; });
  return shares;
}

HostPools::HostPools(std::span<const HostPoolShare> shares, HostPoolConfig config,
                     HostMemory& memory, MemoryPinner& pinner) {
  for (const HostPoolShare& share : shares) {
    config.bytes = share.bytes;
    pools_.push_back(std::make_unique<HostPool>(*share.node, config, memory, pinner));
  }
  thread_ = std::jthread([this](const std::stop_token& stop) { grow(stop); });
}

HostPools::~HostPools() = default;

Bytes HostPools::wait_usable(std::size_t i, Bytes bytes, Nanos timeout_ns) const {
  const HostPool& pool = *pools_[i];
  std::unique_lock lock(mutex_);
  grown_.wait_for(lock, std::chrono::nanoseconds(std::clamp(timeout_ns, Nanos{0}, kMaxWaitNanos)),
                  [&] { return pool.usable_bytes() >= bytes || !pool.report().growing; });
  return pool.usable_bytes();
}

std::string HostPools::describe() const {
  std::string text;
  for (const auto& pool : pools_) text += modalkv::describe(pool->report()) + "\n";
  return text;
}

void HostPools::grow(const std::stop_token& stop) {
  const auto grow_once = [&](HostPool& pool) {
    const bool more = pool.grow(stop);
    // Who waits has either not looked yet or hears of it.
    { const std::lock_guard lock(mutex_); }
    grown_.notify_all();
    return more;
  };
  for (const auto& pool : pools_) grow_once(*pool);
  for (const auto& pool : pools_)
    while (grow_once(*pool)) {
    }
}

}  // namespace modalkv
