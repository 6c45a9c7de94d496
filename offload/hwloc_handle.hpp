// Owners of what hwloc hands out.
#pragma once

#include <hwloc.h>

#include <memory>

namespace modalkv {

struct HwlocDelete {
  void operator()(hwloc_topology_t topology) const { hwloc_topology_destroy(topology); }
  void operator()(hwloc_bitmap_t bitmap) const { hwloc_bitmap_free(bitmap); }
};

using HwlocTopology = std::unique_ptr<hwloc_topology, HwlocDelete>;
using HwlocBitmap = std::unique_ptr<hwloc_bitmap_s, HwlocDelete>;

}  // namespace modalkv
