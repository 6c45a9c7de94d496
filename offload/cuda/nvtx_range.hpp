// What NVIDIA's profilers show of us: a range on the thread that gives a stream its work, with the
// name of the first operation. Costs next to nothing where no profiler listens.
#pragma once

#include <nvtx3/nvToolsExt.h>

#include "modalkv/op.hpp"

namespace modalkv {

class NvtxRange {
 public:
  /// `name` ends in a zero, as those of operations do.
  explicit NvtxRange(const char* name) { nvtxRangePushA(name); }
  explicit NvtxRange(const Op& op) : NvtxRange(name(op).data()) {}
  ~NvtxRange() { nvtxRangePop(); }
  NvtxRange(const NvtxRange&) = delete;
  NvtxRange& operator=(const NvtxRange&) = delete;
};

}  // namespace modalkv
