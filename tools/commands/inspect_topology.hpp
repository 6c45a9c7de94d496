// A machine's memory and cores by hwloc, and where modalkv's host pools go on it.
#pragma once

#include <string>

#include "offload/topology.hpp"

namespace modalkv {

/// Text for a person, or JSON. Throws Error for a description or file that hwloc does not take.
std::string describe_topology(const TopologySource& source, bool json);

}  // namespace modalkv
