// The processor that a measurement ran on.
#pragma once

#include <string>
#include <vector>

#include "modalkv/units.hpp"

namespace modalkv {

struct HostCpu {
  std::string name;
  std::vector<int> cpus;             ///< that this process may run on
  Bytes last_level_cache_bytes = 0;  ///< of all caches of the last level together
};

HostCpu read_host_cpu();

/// Throws Error where there are fewer CPUs than `threads`.
void require_cpus(const HostCpu& cpu, int threads);

}  // namespace modalkv
