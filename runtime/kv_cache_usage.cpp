// What lies where: for metrics.
#include <algorithm>

#include "runtime/kv_cache.hpp"

namespace modalkv {

KvUsage KvCache::usage() const {
  KvUsage usage{.blocks = blocks_.blocks(),
                .kept_segments = static_cast<std::int64_t>(content_.size()),
                .kept_bytes = content_.held_bytes(),
                .groups_in_flight = static_cast<std::int64_t>(errands_.size()),
                .wishes = static_cast<std::int64_t>(wishes_.size()),
                .reserved_bytes = reserved_bytes_};
  for (const Running& sequence : sequences_)
    if (sequence.alive) ++(sequence.paused ? usage.paused_sequences : usage.running_sequences);
  const auto pool = [](Tier tier, int node, const PagePool& of) -> PoolUsage {
    return {tier, node, of.capacity_bytes(), of.used_bytes(), of.retired_bytes()};
  };
  usage.pools.push_back(pool(Tier::device, 0, device_pool_));
  for (const Host& host : hosts_)
    usage.pools.push_back(
        pool(Tier::host, device_.queues()[host.queue.index].numa_node, host.pool));

  // By pool, strand and whether compressed.
  std::vector<PageUsage> kinds(usage.pools.size() * kStrands * 2);
  const auto pool_at = [&](const Address& page) {
    std::size_t at = 0;  // the device, or a host's pool
    if (tier_of(page) == Tier::host)
      while (hosts_[at++].pool.where().space != page.space) {
      }
    return at;
  };
  const auto count = [&](const Address& page, Strand strand, bool low) {
    if (page.bytes == 0) return;
    const std::size_t at = pool_at(page);
    PageUsage& kind = kinds[(at * kStrands + static_cast<std::size_t>(strand)) * 2 + (low ? 1 : 0)];
    if (kind.pages++ == 0)
      kind = {.tier = usage.pools[at].tier,
              .node = usage.pools[at].node,
              .modality = strand == Strand::own ? Modality::text : Modality::visual,
              .format = page_kind(strand, low).shape.format,
              .pages = 1};
    kind.bytes += page.bytes;
  };
  blocks_.for_each([&](BlockId, const Block& block) {
    for (int layer = 0; layer < config_.layers; ++layer) {
      const PageSlots& page = block.pages[static_cast<std::size_t>(layer)];
      const Part& part = block.parts[static_cast<std::size_t>(blocks_.kind(layer))];
      // What is promoted is kept as text is.
      const Strand strand = block.strand == Strand::promoted ? Strand::own : block.strand;
      count(page.now, strand, part.low);
      if (page.now.bytes > 0 && block.sequences.empty())
        usage.pools[pool_at(page.now)].idle_bytes += page.now.bytes;
      count(page.next, strand, part.next_low);
    }
  });
  std::erase_if(kinds, [](const PageUsage& kind) { return kind.pages == 0; });
  usage.pages = std::move(kinds);
  return usage;
}

}  // namespace modalkv
