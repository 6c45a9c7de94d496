// A machine's memory and cores by hwloc, and where modalkv's host pools go on it.
#pragma once

#include <string>

namespace modalkv {

/// At most one is set; neither: this machine.
struct TopologySource {
  std::string synthetic;
  std::string xml_file;
};

/// Text for a person, or JSON. Throws Error for a description or file that hwloc does not take.
std::string describe_topology(const TopologySource& source, bool json);

}  // namespace modalkv
