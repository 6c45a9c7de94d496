#include "tests/runtime/test_device.hpp"

namespace modalkv {

std::optional<int> gpu_of_tests() {
  return {};
}

}  // namespace modalkv
