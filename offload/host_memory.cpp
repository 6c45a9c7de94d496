#include "offload/host_memory.hpp"

#include <fmt/format.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "modalkv/error.hpp"
#include "offload/hwloc_handle.hpp"

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23  // Linux 5.14; older C libraries lack the name
#endif

namespace modalkv {
namespace {

std::string failure(std::string_view call) {
  return fmt::format("{}: {}", call, std::strerror(errno));
}

HwlocBitmap only(int index) {
  HwlocBitmap set(hwloc_bitmap_alloc());
  hwloc_bitmap_only(set.get(), static_cast<unsigned>(index));
  return set;
}

}  // namespace

class HostMemory::Impl {
 public:
  Impl() {
    hwloc_topology_t raw = nullptr;
    if (hwloc_topology_init(&raw) != 0) throw Error("hwloc cannot be initialized");
    topology_.reset(raw);
    if (hwloc_topology_load(raw) != 0) throw Error("hwloc cannot load this machine's topology");
  }
  hwloc_topology_t topology() const { return topology_.get(); }

 private:
  HwlocTopology topology_;
};

HostMemory::HostMemory() : impl_(std::make_unique<Impl>()) {}
HostMemory::~HostMemory() = default;

std::string HostMemory::commit(std::span<std::byte> memory) {
  if (mprotect(memory.data(), memory.size(), PROT_READ | PROT_WRITE) != 0)
    return failure("mprotect");
  // A kernel without huge pages refuses, and needs no asking.
  madvise(memory.data(), memory.size(), MADV_NOHUGEPAGE);
  return {};
}

std::string HostMemory::bind(std::span<std::byte> memory, int node) {
  // Not STRICT, which would be MPOL_BIND and end in the out-of-memory killer on a full node.
  if (hwloc_set_area_membind(impl_->topology(), memory.data(), memory.size(), only(node).get(),
                             HWLOC_MEMBIND_BIND, HWLOC_MEMBIND_BYNODESET) != 0)
    return failure("hwloc_set_area_membind");
  return {};
}

std::string HostMemory::bind_this_thread(std::span<const int> cpus) {
  const HwlocBitmap set(hwloc_bitmap_alloc());
  for (const int cpu : cpus) hwloc_bitmap_set(set.get(), static_cast<unsigned>(cpu));
  if (hwloc_set_cpubind(impl_->topology(), set.get(), HWLOC_CPUBIND_THREAD) != 0)
    return failure("hwloc_set_cpubind");
  return {};
}

std::string HostMemory::touch(std::span<std::byte> memory) {
  int result = 0;
  do {
    result = madvise(memory.data(), memory.size(), MADV_POPULATE_WRITE);
  } while (result != 0 && (errno == EINTR || errno == EAGAIN));
  if (result == 0) return {};
  if (errno != EINVAL && errno != ENOSYS) return failure("madvise(MADV_POPULATE_WRITE)");
  const auto page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
  for (std::size_t i = 0; i < memory.size(); i += page)
    *const_cast<volatile std::byte*>(&memory[i]) = std::byte{0};
  return {};
}

std::optional<int> HostMemory::node_of(const std::byte* page) const {
  const HwlocBitmap nodes(hwloc_bitmap_alloc());
  if (hwloc_get_area_memlocation(impl_->topology(), page, 1, nodes.get(),
                                 HWLOC_MEMBIND_BYNODESET) != 0)
    return std::nullopt;
  const int node = hwloc_bitmap_first(nodes.get());
  return node < 0 ? std::nullopt : std::optional(node);
}

AddressRange::AddressRange(Bytes bytes) {
  const auto size = static_cast<std::size_t>(bytes);
  void* const begin = mmap(nullptr, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (begin == MAP_FAILED)
    throw Error(fmt::format("cannot reserve addresses of {} B: {}", bytes, std::strerror(errno)));
  madvise(begin, size, MADV_DONTFORK);
  madvise(begin, size, MADV_DONTDUMP);
  bytes_ = {static_cast<std::byte*>(begin), size};
}

AddressRange::~AddressRange() {
  munmap(bytes_.data(), bytes_.size());
}

void AddressRange::drop(std::span<std::byte> part) {
  madvise(part.data(), part.size(), MADV_DONTNEED);
  mprotect(part.data(), part.size(), PROT_NONE);
}

}  // namespace modalkv
