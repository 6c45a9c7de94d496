#include "runtime/sequence_lists.hpp"

#include <algorithm>
#include <bit>

namespace modalkv {
namespace {

constexpr Bytes kLeastTableBytes = 256, kMostTableBytes = kMiB;

std::vector<Bytes> table_sizes(Bytes most_bytes) {
  std::vector<Bytes> sizes;
  for (Bytes bytes = kLeastTableBytes; bytes <= most_bytes; bytes *= 2) sizes.push_back(bytes);
  return sizes;
}

// Slabs are few enough to be shared among sizes, and hold the largest table.
Bytes largest_table_bytes(const Address& where) {
  const auto share = static_cast<std::uint64_t>(std::max(where.bytes / 32, kLeastTableBytes));
  return std::min(static_cast<Bytes>(std::bit_floor(share)), kMostTableBytes);
}

}  // namespace

TablePool::TablePool(const Address& where)
    : pool_(where, table_sizes(largest_table_bytes(where)), largest_table_bytes(where)) {
  pool_.grow(where.bytes);
}

std::optional<Address> TablePool::take(Bytes bytes) {
  const auto size = std::max(static_cast<Bytes>(std::bit_ceil(static_cast<std::uint64_t>(bytes))),
                             kLeastTableBytes);
  if (size > pool_.slots().slab_bytes()) return {};
  return pool_.take(size);
}

void TablePool::give_back(const Address& table, Fence fence) {
  if (table.bytes > 0) pool_.give_back(table, fence);
}

}  // namespace modalkv
