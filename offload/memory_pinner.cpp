#include "offload/memory_pinner.hpp"

#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/resource.h>

#include <cerrno>
#include <cstring>

namespace modalkv {

std::string MlockPinner::pin(std::span<std::byte> memory) {
  if (mlock(memory.data(), memory.size()) == 0) return {};
  const int error = errno;
  rlimit limit{};
  if (getrlimit(RLIMIT_MEMLOCK, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY)
    return fmt::format("mlock: {}", std::strerror(error));
  return fmt::format("mlock: {} (RLIMIT_MEMLOCK is {} B)", std::strerror(error), limit.rlim_cur);
}

void MlockPinner::unpin(std::span<std::byte> memory) {
  munlock(memory.data(), memory.size());
}

}  // namespace modalkv
