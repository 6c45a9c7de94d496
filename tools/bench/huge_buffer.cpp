#include "tools/bench/huge_buffer.hpp"

#include <fmt/format.h>
#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <limits>
#include <new>
#include <utility>

#include "modalkv/error.hpp"

namespace modalkv {
namespace {

constexpr Bytes kHugePageBytes = 2 * kMiB;
constexpr Bytes kUnlimited = std::numeric_limits<Bytes>::max();

Bytes number_in_file(const char* path, Bytes otherwise) {
  std::ifstream file(path);
  Bytes value = 0;
  return file >> value ? value : otherwise;  // "max" is no number
}

Bytes kernel_estimate_bytes() {
  std::ifstream file("/proc/meminfo");
  for (std::string key, rest; file >> key && std::getline(file, rest);)
    if (key == "MemAvailable:") return std::stoll(rest) * kKiB;
  return kUnlimited;
}

}  // namespace

Bytes available_memory_bytes() {
  const Bytes limit = number_in_file("/sys/fs/cgroup/memory.max", kUnlimited);
  const Bytes used = number_in_file("/sys/fs/cgroup/memory.current", 0);
  return std::min(kernel_estimate_bytes(),
                  limit == kUnlimited ? kUnlimited : std::max<Bytes>(0, limit - used));
}

void require_memory(Bytes bytes, std::string_view what) {
  const Bytes available = available_memory_bytes();
  if (bytes > available / 10 * 9)
    throw Error(fmt::format(
        "{} takes {:.2f} GiB and {:.2f} GiB of memory are available: measure a "
        "smaller case",
        what, static_cast<double>(bytes) / kGiB, static_cast<double>(available) / kGiB));
}

HugeBuffer::HugeBuffer(Bytes bytes) {
  const auto size = static_cast<std::size_t>(round_up(std::max<Bytes>(bytes, 1), kHugePageBytes));
  void* memory = std::aligned_alloc(static_cast<std::size_t>(kHugePageBytes), size);
  if (memory == nullptr) throw std::bad_alloc();
  madvise(memory, size, MADV_HUGEPAGE);  // where it is refused, small pages do
  std::memset(memory, 0, size);
  bytes_ = {static_cast<std::byte*>(memory), static_cast<std::size_t>(bytes)};
}

HugeBuffer::~HugeBuffer() {
  std::free(bytes_.data());
}

HugeBuffer::HugeBuffer(HugeBuffer&& other) noexcept : bytes_(std::exchange(other.bytes_, {})) {}

}  // namespace modalkv
