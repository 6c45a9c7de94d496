#include "tools/bench/host_cpu.hpp"

#include <fmt/format.h>
#include <hwloc.h>
#include <sched.h>

#include <fstream>

#include "modalkv/error.hpp"

namespace modalkv {
namespace {

std::string cpu_name() {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);)
    if (line.starts_with("model name"))
      if (const std::size_t at = line.find(": "); at != std::string::npos)
        return line.substr(at + 2);
  return "unknown";
}

std::vector<int> allowed_cpus() {
  std::vector<int> cpus;
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof set, &set) != 0) return {0};
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu)
    if (CPU_ISSET(cpu, &set)) cpus.push_back(cpu);
  return cpus;
}

// The deepest data or unified cache level that hwloc knows, all its caches together.
Bytes last_level_cache_bytes() {
  constexpr hwloc_obj_type_t kLevels[] = {HWLOC_OBJ_L5CACHE, HWLOC_OBJ_L4CACHE, HWLOC_OBJ_L3CACHE,
                                          HWLOC_OBJ_L2CACHE};
  hwloc_topology_t topology;
  if (hwloc_topology_init(&topology) != 0) return 0;
  Bytes bytes = 0;
  if (hwloc_topology_load(topology) == 0)
    for (const hwloc_obj_type_t level : kLevels) {
      for (hwloc_obj_t cache = nullptr;
           (cache = hwloc_get_next_obj_by_type(topology, level, cache)) != nullptr;)
        bytes += static_cast<Bytes>(cache->attr->cache.size);
      if (bytes > 0) break;
    }
  hwloc_topology_destroy(topology);
  return bytes;
}

}  // namespace

HostCpu read_host_cpu() {
  return {cpu_name(), allowed_cpus(), last_level_cache_bytes()};
}

void require_cpus(const HostCpu& cpu, int threads) {
  if (threads > static_cast<int>(cpu.cpus.size()))
    throw Error(
        fmt::format("--threads {}: this process may use {} CPUs", threads, cpu.cpus.size()));
}

}  // namespace modalkv
