// How fast a GPU, its link and our kernels on it are, each beside what the same card can do.
#pragma once

#include <string>
#include <vector>

#include "offload/cuda/gpu_driver.hpp"

namespace modalkv {

struct Measured {
  std::string what;
  double value = 0;  ///< median of the runs
  double best = 0;
  std::string unit;
};

/// Takes a minute on a GPU. `scale`: of the bytes that are moved; 1 on a GPU, less where one is
/// emulated.
std::vector<Measured> measure_gpu(GpuDriver& driver, double scale);

}  // namespace modalkv
