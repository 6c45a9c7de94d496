#include "offload/host_device.hpp"

#include <numeric>

namespace modalkv {

HostDevice::HostDevice(std::vector<QueueInfo> queues) : threads_(std::move(queues)) {
  std::vector<std::size_t> all(threads_.queues().size());
  std::iota(all.begin(), all.end(), std::size_t{0});
  threads_.start(all);
}

HostDevice::~HostDevice() {
  threads_.stop();
  threads_.with_book([](GroupBook& book) { book.abandon_exports(); });
}

}  // namespace modalkv
