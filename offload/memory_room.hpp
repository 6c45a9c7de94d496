// How much more memory this process may touch before the kernel kills it or somebody else.
#pragma once

#include <filesystem>
#include <string>

#include "modalkv/units.hpp"

namespace modalkv {

struct MemoryRoom {
  Bytes bytes = 0;
  std::string limited_by;  ///< "the memory limit of cgroup /a/b"
};

/// Least of what is available on the machine, on NUMA node `node`, and under the memory limits of
/// this process's cgroup and those above it (version 1 and 2; caches that can be dropped count as
/// free). What cannot be read does not limit. `root` is where /proc and /sys are.
MemoryRoom memory_room(int node, const std::filesystem::path& root = "/");

}  // namespace modalkv
